// Both servers send the same events at the same time, in many streams, to a process beside
// each. What they spend on it they measure themselves. One stream tells this page of all
// that, so that it needs one connection, and no server but that of the demo.
import { Chart } from "./chart.js";
import { field, framesOf, say } from "./frames.js";

const SAMPLE = 100; // milliseconds

const panel = document.querySelector("#race");
const form = panel.querySelector("form");
const button = form.querySelector("button");
const status = panel.querySelector(".status");
let stop = null;
const whole = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const short = new Intl.NumberFormat("en", { notation: "compact" });
const speedChart = new Chart(panel.querySelector("#speed"), {
  least: 100,
  format: (value) => short.format(value),
});
const cpuChart = new Chart(panel.querySelector("#cpu"), {
  least: 100,
  format: (value) => `${Math.round(value)} %`,
});

class Contestant {
  constructor(lane) {
    this.name = lane.classList.contains("ours") ? "ours" : "theirs";
    this.package = lane.dataset.package;
    this.bar = lane.querySelector("progress");
    this.time = lane.querySelector(".time");
    this.rest = lane.querySelector(".rest");
  }

  prepare(expected) {
    this.expected = expected;
    this.received = 0;
    this.seconds = null; // to the last event
    this.samples = [{ seconds: 0, received: 0 }];
    this.speed = { name: this.name, points: [[0, 0]] };
    this.cpu = { name: this.name, points: [[0, 0]] };
    this.usage = [];
    this.started = null;
  }

  /** Takes what the process says that reads the streams. */
  take({ usage, received, seconds }) {
    if (usage) return this.measure(usage);
    this.started ??= performance.now() - 1000 * seconds;
    this.received = received;
    if (received === this.expected) this.seconds ??= seconds;
  }

  measure(usage) {
    if (this.started === null) this.usage = [usage]; // what counts is the last before
    else {
      const last = this.usage.at(-1);
      const share = (usage.cpu - last.cpu) / (usage.clock - last.clock);
      this.usage.push(usage);
      this.cpu.points.push([this.elapsed(), 100 * share]);
    }
  }

  elapsed() {
    return this.started === null ? 0 : (performance.now() - this.started) / 1000;
  }

  sample() {
    const seconds = this.seconds ?? this.elapsed();
    if (seconds > this.samples.at(-1).seconds) this.takeSpeed(seconds);
    this.bar.value = this.received / this.expected;
    this.time.textContent = `${seconds.toFixed(2)} s`;
    const average = whole.format(this.received / Math.max(seconds, 0.001));
    const cost = whole.format(this.microseconds());
    this.rest.textContent =
      `${this.received.toLocaleString("en")} events, ${average} per second; ` +
      `${cost} µs of server CPU for each`;
  }

  takeSpeed(seconds) {
    const passed = seconds - this.samples.at(-1).seconds;
    // No speed is seen in a few milliseconds: they go with those before.
    if (passed < SAMPLE / 2000 && this.samples.length > 1) {
      this.samples.pop();
      this.speed.points.pop();
    }
    const before = this.samples.at(-1);
    const speed = (this.received - before.received) / (seconds - before.seconds);
    this.speed.points.push([seconds, speed]);
    this.samples.push({ seconds, received: this.received });
  }

  microseconds() {
    if (!this.usage.length) return 0; // its process is being started
    const used = this.usage.at(-1).cpu - this.usage[0].cpu;
    return (used / Math.max(1, this.received)) * 1e6;
  }
}

/** Hears how far both are, until their processes have ended. */
async function watch(contestants, { streams, events, pause }, signal) {
  const asked = new URLSearchParams({ streams, number: events, pause });
  const response = await fetch(`race?${asked}`, { signal });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  for await (const frame of framesOf(response)) {
    const data = field(frame, "data"); // a ping has none
    if (data === undefined) continue;
    const of = field(frame, "event");
    contestants.find((one) => one.package === of).take(JSON.parse(data));
  }
  for (const { received, expected, package: name } of contestants)
    if (received !== expected) throw new Error(`${name} lost events`);
}

async function race(contestants, asked) {
  stop = new AbortController();
  button.textContent = "Stop";
  say(status, "busy", "Racing …");
  const draw = () => {
    for (const contestant of contestants) contestant.sample();
    const speeds = contestants.map(({ speed }) => speed);
    const cpus = contestants.map(({ cpu }) => cpu);
    const seconds = Math.max(...[...speeds, ...cpus].map(({ points }) => points.at(-1)[0]));
    if (seconds === 0) return; // the processes that read are being started
    speedChart.draw(speeds, seconds);
    cpuChart.draw(cpus, seconds);
  };
  let timer;
  try {
    const expected = asked.streams * asked.events;
    for (const contestant of contestants) contestant.prepare(expected);
    timer = setInterval(draw, SAMPLE);
    await watch(contestants, asked, stop.signal);
    draw();
    say(status, "done", verdict(...contestants));
  } catch (error) {
    stop.abort(error);
    if (error.name === "AbortError") say(status, "idle", "Stopped");
    else say(status, "error", `Error: ${error.message}`);
  }
  clearInterval(timer);
  stop = null;
  button.textContent = "Start";
}

function verdict(ours, theirs) {
  const part = (ratio) => `1/${ratio.toPrecision(2)}`;
  const cpu = `${part(theirs.microseconds() / ours.microseconds())} of the server CPU`;
  const ratio = theirs.seconds / ours.seconds;
  if (ratio < 1.2) return `fastapi_sse_fast used ${cpu}`; // both kept the pace
  return `fastapi_sse_fast finished in ${part(ratio)} of the time, with ${cpu}`;
}

const versions = await (await fetch("versions")).json();
document.querySelector("#versions").textContent = Object.entries(versions)
  .map((pair) => pair.join(" "))
  .join(", ");
const contestants = [...panel.querySelectorAll(".lane")].map((lane) => new Contestant(lane));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (stop) return stop.abort();
  const { streams, events, pause } = Object.fromEntries(new FormData(form));
  race(contestants, {
    streams: Number(streams),
    events: Number(events),
    pause: Number(pause),
  });
});
form.elements.pause.addEventListener("change", ({ target }) => {
  const [streams, events] = target.value === "0" ? [20, 1000] : [300, 100];
  form.elements.streams.value = streams;
  form.elements.events.value = events;
});
button.disabled = false;
