// The clients that live in Node, or are driven by it. A line of the input is
// [client, url]; a line of the output is what the client saw of it:
// {events: [[data, type, id], …], states: ["open", …]}.
import { createInterface } from "node:readline";

import { fetchEventSource } from "@microsoft/fetch-event-source";
import { EventSource } from "eventsource";
import { EventSourceParserStream } from "eventsource-parser/stream";
import { chromium } from "playwright-core";

const LONGEST = 60_000;
const DOCUMENTED = process.env.DOCUMENTED_PARSER;
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

// Runs in the browser too, so it uses nothing but its arguments. What it saw crosses
// over as text: an object of 50,000 events takes playwright many seconds.
function listen([url, longest], Source = globalThis.EventSource) {
  return new Promise((resolve) => {
    const events = [];
    const states = [];
    const source = new Source(url);
    const stop = (...last) => {
      source.close();
      states.push(...last);
      resolve(JSON.stringify({ events, states }));
    };
    const timer = setTimeout(stop, longest, "timeout");
    const see = (event) => events.push([event.data, event.type, event.lastEventId]);
    source.addEventListener("message", see);
    source.addEventListener("token", see);
    source.addEventListener("end", () => {
      clearTimeout(timer);
      stop();
    });
    source.onopen = () => states.push("open");
    source.onerror = () => {
      if (source.readyState === Source.CLOSED) {
        clearTimeout(timer);
        stop("closed");
      } else {
        states.push("reconnecting");
      }
    };
  });
}

let browser;
const pages = new Map(); // by origin

async function pageOf(url) {
  const { origin } = new URL(url);
  if (!pages.has(origin)) {
    browser ??= await chromium.launch({
      executablePath: process.env.CHROMIUM,
      args: FLAGS,
    });
    const page = await browser.newPage({ ignoreHTTPSErrors: true });
    await page.goto(`${origin}/page`);
    pages.set(origin, page);
  }
  return pages.get(origin);
}

async function parse(url) {
  const events = [];
  let id = "";
  try {
    const response = await fetch(url);
    if (!response.ok) return { events, states: ["refused"] };
    const parsed = response.body
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(new EventSourceParserStream());
    for await (const event of parsed) {
      if (event.event === "end") continue;
      id = event.id ?? id; // keeping it is the caller's part
      events.push([event.data, event.event ?? "message", id]);
    }
  } catch (error) {
    return { events, states: ["broken"] };
  }
  return { events, states: ["ended"] };
}

// The parser of the documentation; runs in the browser too.
async function parseAsDocumented([url, source]) {
  const module = `data:text/javascript,${encodeURIComponent(source)}`;
  const { readEvents } = await import(module);
  const events = [];
  let state = "ended";
  try {
    const response = await fetch(url);
    if (!response.ok) state = "refused";
    else {
      for await (const { type, data, lastEventId } of readEvents(response)) {
        if (type !== "end") events.push([data, type, lastEventId]);
      }
    }
  } catch (error) {
    state = "broken";
  }
  return JSON.stringify({ events, states: [state] });
}

// A browser's library: it looks for its globals in `window`.
globalThis.window = globalThis;
globalThis.document = new EventTarget();

async function fetchEvents(url) {
  const events = [];
  const states = [];
  const closed = new AbortController();
  const timer = setTimeout(() => closed.abort(states.push("timeout")), LONGEST);
  let id = "";
  let failures = 0;
  try {
    await fetchEventSource(url, {
      signal: closed.signal,
      openWhenHidden: true,
      onmessage(event) {
        failures = 0;
        if (event.event === "end") return closed.abort();
        id = event.id || id; // keeping it is the caller's part
        events.push([event.data, event.event || "message", id]);
      },
      onclose: () => states.push("ended"),
      onerror(error) {
        states.push("reconnecting");
        failures += 1;
        if (failures > 1) throw error; // it would go on for ever
      },
    });
  } catch {
    states.push("stopped");
  }
  clearTimeout(timer);
  return { events, states };
}

async function listenInBrowser(url) {
  const page = await pageOf(url);
  return JSON.parse(await page.evaluate(listen, [url, LONGEST]));
}

async function parseInBrowser(url) {
  const page = await pageOf(url);
  return JSON.parse(await page.evaluate(parseAsDocumented, [url, DOCUMENTED]));
}

const clients = {
  chromium: listenInBrowser,
  eventsource: async (url) => JSON.parse(await listen([url, LONGEST], EventSource)),
  documented: async (url) => JSON.parse(await parseAsDocumented([url, DOCUMENTED])),
  "documented-in-chromium": parseInBrowser,
  "eventsource-parser": parse,
  "fetch-event-source": fetchEvents,
};

for await (const line of createInterface({ input: process.stdin })) {
  const [client, url] = JSON.parse(line);
  console.log(JSON.stringify(await clients[client](url)));
}
await browser?.close();
