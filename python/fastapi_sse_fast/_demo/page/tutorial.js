// The other routes: what each one sends, to the byte.
import { say } from "./frames.js";

const ROUTES = [
  { title: "Typed items", path: "/items/stream" },
  { title: "Typed, from a sync function", path: "/items/stream-sync" },
  { title: "Untyped items", path: "/items/stream-untyped" },
  { title: "Untyped, from a sync function", path: "/items/stream-sync-untyped" },
  { title: "Events with all their fields", path: "/items/stream-events" },
  { title: "Raw data", path: "/logs/stream" },
  { title: "Resumed after the first item", path: "/items/resume", headers: { "Last-Event-ID": "1" } },
  {
    title: "POST",
    path: "/chat",
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ text: "Word by word" }),
  },
];

function add({ title, path, ...request }) {
  const entry = document.querySelector("#route").content.cloneNode(true);
  const [heading, code, status, button, frames] = ["h3", "code", ".status", "button", "pre"].map(
    (name) => entry.querySelector(name),
  );
  heading.textContent = title;
  code.textContent = `${request.method ?? "GET"} ${path}`;
  button.setAttribute("aria-label", `Show: ${title}`);
  frames.setAttribute("aria-label", `Frames: ${title}`);
  button.addEventListener("click", async () => {
    status.hidden = false;
    try {
      const response = await fetch(`tutorial${path}`, request);
      frames.textContent = await response.text();
      frames.hidden = false;
      const number = frames.textContent.split("\n\n").length - 1;
      say(status, response.ok ? "done" : "error", `${response.status}, ${number} frames`);
    } catch (error) {
      say(status, "error", `Error: ${error.message}`);
    }
  });
  document.querySelector("#tutorial ul").append(entry);
}

ROUTES.forEach(add);
