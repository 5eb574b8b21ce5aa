// OpenAI's SDK for Node: `node chat.mjs <base URL> <question> <tokens>` reads a
// streamed answer, or leaves after some tokens, and prints what it saw of it. With the
// id of a completion as a further argument, it reads that one again.
import OpenAI from "openai";

const [baseURL, question, most, again] = process.argv.slice(2);
const { rate, ...asked } = JSON.parse(question);
const client = new OpenAI({ baseURL, apiKey: "key", maxRetries: 0, defaultQuery: { rate } });
const messages = [{ role: "user", content: "What are Server-Sent Events?" }];
const tokens = [];
let id, role, reason, usage, error;
try {
  const stream = again
    ? await client.get("/chat/completions/" + again + "/stream", { stream: true })
    : await client.chat.completions.create({ ...asked, messages, stream: true });
  for await (const chunk of stream) {
    id = chunk.id;
    usage = chunk.usage ?? usage;
    const [choice] = chunk.choices;
    role ??= choice?.delta.role;
    reason ??= choice?.finish_reason;
    if (choice?.delta.content) tokens.push(choice.delta.content);
    if (tokens.length === Number(most)) break;
  }
} catch (raised) {
  const { status, code, message } = raised;
  error = { name: raised.constructor.name, status, code, message };
}
console.log(JSON.stringify({ id, tokens, role, reason, usage, error }));
