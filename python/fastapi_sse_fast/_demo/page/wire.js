// The frames of one stream, and what EventSource does unseen: it keeps the last id and the
// time to wait, and reconnects with that id when its connection is lost.
import { atEnd, field, framesOf, say } from "./frames.js";

const KEPT = 200; // frames in the list

const panel = document.querySelector("#wire");
const form = panel.querySelector("form");
const [connectButton, cutButton] = form.querySelectorAll("button");
const list = panel.querySelector(".frames");
const status = panel.querySelector(".status");

const figures = { events: 0, pings: 0, reconnects: 0, lost: 0, doubled: 0 };
let lastId = 0;
let retry = 3000;
let started = null;
let connection = null; // as the server calls it
let stop = null;
let scripted = false; // the page connects, cuts and disconnects by itself

function count(name, number = 1) {
  figures[name] += number;
  panel.querySelector(`[data-count="${name}"]`).textContent = figures[name];
}

function show(kind, ...content) {
  const follow = atEnd(list);
  const entry = document.createElement("li");
  const time = document.createElement("time");
  const text = document.createElement("pre");
  time.textContent = `${((performance.now() - started) / 1000).toFixed(2)} s`;
  text.className = kind;
  text.append(...content);
  entry.append(time, text);
  list.append(entry);
  if (list.children.length > KEPT) list.firstChild.remove();
  if (follow) list.scrollTop = list.scrollHeight;
}

function* coloured(frame) {
  for (const line of frame.split("\n")) {
    const name = document.createElement("span");
    name.className = "name";
    const end = line.indexOf(":");
    name.textContent = line.slice(0, end);
    yield name;
    yield `${line.slice(end)}\n`;
  }
}

function take(frame) {
  retry = Number(field(frame, "retry") ?? retry);
  const id = field(frame, "id");
  if (id === undefined) {
    const ping = frame.startsWith(":");
    if (ping) count("pings");
    show(ping ? "ping" : "frame", ...(ping ? [frame] : coloured(frame)));
    return;
  }
  if (Number(id) <= lastId) count("doubled");
  else count("lost", Number(id) - lastId - 1);
  lastId = Math.max(lastId, Number(id));
  count("events");
  show("frame", ...coloured(frame));
  if (scripted && figures.events === 4) cut();
  if (scripted && figures.events === 11) stop.abort();
}

async function readOnce() {
  const headers = lastId ? { "Last-Event-ID": lastId } : {};
  show("request", `GET /count${lastId ? `  Last-Event-ID: ${lastId}` : ""}`);
  const response = await fetch("count", { headers, signal: stop.signal });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  connection = response.headers.get("X-Connection");
  cutButton.ariaDisabled = "false";
  say(status, "busy", `Connected from port ${connection}`);
  for await (const frame of framesOf(response)) take(frame);
}

async function connect() {
  stop = new AbortController();
  const { signal } = stop;
  started ??= performance.now();
  connectButton.textContent = "Disconnect";
  for (;;) {
    try {
      await readOnce();
    } catch {
      // It goes on in any case.
    }
    cutButton.ariaDisabled = "true"; // and not disabled, or it would lose the focus
    if (signal.aborted) break;
    show("lost", `connection lost, reconnecting in ${retry} ms`);
    say(status, "error", "Connection lost");
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, retry);
      signal.addEventListener("abort", () => resolve(clearTimeout(timer)));
    });
    if (signal.aborted) break;
    count("reconnects");
  }
  stop = null;
  connectButton.textContent = "Connect";
  say(status, "idle", "Disconnected");
}

function cut() {
  if (cutButton.ariaDisabled === "true") return;
  cutButton.ariaDisabled = "true";
  fetch(`connections/${connection}`, { method: "DELETE" });
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  scripted = false;
  if (stop) stop.abort();
  else connect();
});
cutButton.addEventListener("click", () => {
  scripted = false;
  cut();
});

/** Show a cut connection without being asked to. */
export function startWire() {
  if (started !== null) return; // somebody was faster
  scripted = true;
  connect();
}
