// A chat whose answer is a run. After a reload, in a second tab, or when its connection was lost,
// the page reads the answer from where it is. EventSource sees to the connection.
import { atEnd, say } from "./frames.js";

const panel = document.querySelector("#chat");
const form = panel.querySelector("form");
const button = form.querySelector("button");
const reply = panel.querySelector(".reply");
const status = panel.querySelector(".status");

// All tabs of this browser have the same chat.
localStorage.chat ??= Math.random().toString(36).slice(2);
const url = `openai/chats/${localStorage.chat}`;

let source = null;
let asked = null; // when this page has sent the prompt, if it has
let first, tokens, problem;
let whenOver = () => {};

function begin() {
  first = problem = undefined;
  tokens = 0;
  reply.textContent = "";
}

function open() {
  source?.close();
  begin();
  // Screen readers wait until the reply is complete, and do not read every token.
  reply.setAttribute("aria-busy", "true");
  button.textContent = "Stop";
  say(status, "busy", "Connecting …");
}

function close(state, text) {
  source?.close();
  source = null;
  reply.setAttribute("aria-busy", "false");
  button.textContent = "Send";
  say(status, state, text);
  whenOver();
}

function take(data) {
  if (data === "[DONE]") return;
  const { choices, error } = JSON.parse(data);
  if (error) {
    problem = error.message;
    return;
  }
  const { role, content } = choices[0].delta;
  if (role) begin(); // the first event of every answer, also of one that is read again
  if (!content) return;
  first ??= performance.now();
  tokens += 1;
  const follow = atEnd(reply);
  reply.append(content);
  if (follow) reply.scrollTop = reply.scrollHeight;
  say(status, "busy", `${tokens} tokens`);
}

function end(how) {
  if (problem) {
    const when = tokens ? `after ${tokens} tokens` : "before the first token";
    close("error", `Error ${when}: ${problem}`);
  } else if (how === "cancelled") close("idle", `Stopped after ${tokens} tokens`);
  else if (how !== "done") close("error", `Error after ${tokens} tokens: ${how}`);
  else if (asked === null) close("done", `${tokens} tokens, asked before this page was loaded`);
  else {
    const seconds = ((performance.now() - asked) / 1000).toFixed(1);
    const wait = Math.round(first - asked);
    close("done", `${tokens} tokens in ${seconds} s, the first after ${wait} ms`);
  }
}

/** Read the answer. If there is none, the server answers 204, which closes an EventSource. */
function listen(ifNone) {
  open();
  source = new EventSource(`${url}/stream`);
  source.addEventListener("message", ({ data }) => take(data));
  source.addEventListener("end", ({ data }) => end(JSON.parse(data).status));
  source.addEventListener("error", ({ data }) => {
    if (data !== undefined) end(JSON.parse(data).code); // of the run
    else if (source.readyState === EventSource.CLOSED) ifNone();
    else say(status, "error", `Connection lost after ${tokens} tokens, reconnecting …`);
  });
}

async function send({ prompt, model, rate }) {
  open();
  asked = performance.now();
  try {
    const response = await fetch(`${url}?rate=${rate}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ model, messages: [{ role: "user", content: prompt }], stream: true }),
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    listen(() => close("error", "The server has no answer"));
  } catch (error) {
    close("error", `Error: ${error.message}`);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (button.textContent === "Send") send(Object.fromEntries(new FormData(form)));
  else fetch(`${url}/stop`, { method: "POST" });
});

/** Continue the answer of this chat, or ask if there is none. Wait until it has ended. */
export function startChat() {
  return new Promise((resolve) => {
    whenOver = resolve;
    listen(() => send(Object.fromEntries(new FormData(form))));
  });
}
