// A chat completion by POST, which EventSource cannot send: fetch, frames, JSON.
import { atEnd, field, framesOf, say } from "./frames.js";

const panel = document.querySelector("#chat");
const form = panel.querySelector("form");
const button = form.querySelector("button");
const reply = panel.querySelector(".reply");
const status = panel.querySelector(".status");
let stop = null;

async function send({ prompt, model, rate }) {
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  let first = null;
  let tokens = 0;
  reply.textContent = "";
  // Screen readers wait until the reply is complete, and do not read every token.
  reply.setAttribute("aria-busy", "true");
  button.textContent = "Stop";
  stop = new AbortController();
  say(status, "busy", "Connecting …");
  try {
    const response = await fetch(`openai/v1/chat/completions?rate=${rate}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ model, messages: [{ role: "user", content: prompt }], stream: true }),
      signal: stop.signal,
    });
    if (!response.ok) {
      const { error } = await response.json();
      throw new Error(`${response.status}, before the first token: ${error.message}`);
    }
    for await (const frame of framesOf(response)) {
      const data = field(frame, "data");
      if (data === undefined) continue; // a ping
      if (data === "[DONE]") break;
      const { choices, error } = JSON.parse(data);
      if (error) throw new Error(`after ${tokens} tokens: ${error.message}`);
      const content = choices[0].delta.content;
      if (!content) continue;
      first ??= seconds();
      tokens += 1;
      const follow = atEnd(reply);
      reply.append(content);
      if (follow) reply.scrollTop = reply.scrollHeight;
      say(status, "busy", `${tokens} tokens`);
    }
    const summary = `${tokens} tokens in ${seconds().toFixed(1)} s`;
    say(status, "done", `${summary}, the first after ${Math.round(first * 1000)} ms`);
  } catch (error) {
    if (stop.signal.aborted) say(status, "idle", `Stopped after ${tokens} tokens`);
    else say(status, "error", `Error ${error.message}`);
  }
  stop = null;
  reply.setAttribute("aria-busy", "false");
  button.textContent = "Send";
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (stop) stop.abort();
  else send(Object.fromEntries(new FormData(form)));
});

export function startChat() {
  form.requestSubmit();
}
