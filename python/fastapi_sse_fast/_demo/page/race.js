// Two servers send the same tokens, one after the other. A process reads the streams of each
// and reports what has arrived and what CPU the server has used. All open pages see the same
// race.
import { Chart } from "./chart.js";
import { eventsOf } from "./frames.js";

const INTERVAL = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1000 : 100;

const panel = document.querySelector("#race");
const form = panel.querySelector("form");
const button = form.querySelector("button");
const result = panel.querySelector(".result");
const large = panel.querySelector(".large");
const detail = panel.querySelector(".detail");
let stop = null;

const whole = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const short = new Intl.NumberFormat("en", { notation: "compact" });
const deliveredChart = new Chart(panel.querySelector("#delivered"), {
  least: 1000,
  format: (value) => short.format(value),
  formatX: (seconds) => `${Number(seconds.toFixed(1))} s`,
});
const cpuChart = new Chart(panel.querySelector("#cpu"), {
  least: 1,
  format: (value) => whole.format(value),
  formatX: (tokens) => `${short.format(tokens)} tokens`,
});

class Lane {
  constructor(element) {
    this.name = element.classList.contains("ours") ? "ours" : "theirs";
    this.package = element.dataset.package;
    this.bar = element.querySelector("progress");
    this.state = element.querySelector(".state");
    this.figures = element.querySelectorAll("[data-figure]");
    this.clear();
  }

  clear() {
    this.before = null; // the last sample before the start
    this.samples = [{ seconds: 0, received: 0, cpu: 0 }];
    this.state.textContent = "waiting";
    this.bar.value = 0;
    for (const figure of this.figures) figure.textContent = "–";
  }

  take(sample) {
    if (sample.seconds === 0 || !this.before) {
      this.before = sample;
      this.state.textContent = "opening streams";
      return;
    }
    this.samples.push({ ...sample, cpu: sample.cpu - this.before.cpu });
    this.state.textContent = `${sample.seconds.toFixed(1)} s`;
  }

  get last() {
    return this.samples.at(-1);
  }

  get started() {
    return this.samples.length > 1;
  }

  /** Seconds that a token is behind the time when it was due. */
  lag({ streams, rate }) {
    return Math.max(0, this.last.seconds - this.last.received / (streams * rate));
  }

  share({ streams, rate }) {
    return Math.min(1, this.last.received / (streams * rate * this.last.seconds));
  }

  /** Microseconds of CPU for a token. */
  get cost() {
    return (this.last.cpu / Math.max(1, this.last.received)) * 1e6;
  }

  show(workload, most) {
    if (!this.started) return;
    const { seconds, received, cpu } = this.last;
    const { rate, streams } = workload;
    this.bar.value = received / (rate ? streams * rate * workload.seconds : most);
    const texts = {
      speed: whole.format(received / seconds),
      delivered: rate ? percent(this.share(workload)) : short.format(received),
      lag: rate ? time(this.lag(workload)) : "–",
      cpu: `${cpu.toFixed(2)} s`,
      cost: received > streams ? `${whole.format(this.cost)} µs` : "–",
    };
    for (const figure of this.figures) figure.textContent = texts[figure.dataset.figure];
  }

  line(x, y) {
    return { name: this.name, points: this.samples.map((one) => [one[x], one[y]]) };
  }
}

const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
const time = (seconds) =>
  seconds < 0.995 ? `${Math.round(seconds * 1000)}\u00a0ms` : `${seconds.toFixed(1)}\u00a0s`;

const lanes = [...panel.querySelectorAll(".lane")].map((element) => new Lane(element));
const [theirs, ours] = lanes;

function draw(workload) {
  const most = Math.max(1, ...lanes.map((lane) => lane.last.received));
  for (const lane of lanes) lane.show(workload, most);
  const seconds = Math.max(workload.seconds, ...lanes.map((lane) => lane.last.seconds));
  const offered = [0, seconds].map((at) => [at, at * workload.streams * workload.rate]);
  const lines = lanes.map((lane) => lane.line("seconds", "received"));
  if (workload.rate) lines.unshift({ name: "offered", points: offered });
  deliveredChart.draw(lines, seconds);
  const tokens = Math.max(most, workload.rate ? offered[1][1] : 0);
  cpuChart.draw(lanes.map((lane) => lane.line("received", "cpu")), tokens);
}

/** Show what is going on or, if the race is over, its result. */
function conclude(text, more, over = true) {
  // Screen readers wait until it is over.
  result.setAttribute("aria-busy", String(!over));
  large.textContent = text;
  detail.textContent = more;
}

function showResult(workload) {
  const ratio = theirs.cost / ours.cost;
  const factor = (ratio >= 1 ? ratio : 1 / ratio).toPrecision(2);
  const text = `${factor}× ${ratio >= 1 ? "less" : "more"} CPU per token`;
  const told = (lane) => {
    if (!workload.rate) return `${lane.package} delivered ${short.format(lane.last.received)} tokens`;
    const share = `${lane.package} delivered ${percent(lane.share(workload))}`;
    return `${share}, ${time(lane.lag(workload))} behind`;
  };
  conclude(text, `${told(ours)}. ${told(theirs)}.`);
}

async function watch(asked, signal) {
  let workload = asked;
  let timer;
  try {
    for await (const { type, data } of eventsOf(`race?${new URLSearchParams(asked)}`, signal)) {
      if (type === "waiting") conclude("Waiting …", "Another page runs a scene or a race.", false);
      else if (type === "workload") {
        workload = data;
        const { rate, streams } = workload;
        const offered = `${(rate * streams).toLocaleString("en")} tokens per second`;
        const what = rate ? `${offered} in ${streams} streams` : `a burst in ${streams} streams`;
        conclude("Measuring …", `Each server has to send ${what}.`, false);
        timer = setInterval(() => draw(workload), INTERVAL);
      } else lanes.find((lane) => lane.package === type).take(data);
    }
    draw(workload);
    showResult(workload);
  } finally {
    clearInterval(timer);
  }
}

/** Run or join a race. Return whether it was run to its end. */
export async function runRace() {
  const { rate, streams } = Object.fromEntries(new FormData(form));
  stop = new AbortController();
  button.textContent = "Stop";
  for (const lane of lanes) lane.clear();
  conclude("Measuring …", "Starting …", false);
  try {
    await watch({ rate, streams }, stop.signal);
    return true;
  } catch (error) {
    if (stop.signal.aborted) conclude("Stopped", "Nothing was measured.");
    else conclude("No result", `The race has failed: ${error.message}.`);
    return false;
  } finally {
    stop = null;
    button.textContent = "Run again";
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (stop) stop.abort();
  else runRace();
});
form.elements.rate.addEventListener("change", ({ target }) => {
  form.elements.streams.value = target.value === "0" ? 20 : 300;
});
draw({ rate: 50, streams: 300, seconds: 3.5 });
