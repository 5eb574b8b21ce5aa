// Scenes on both servers. The demo runs them and reports what happens. All open pages see the
// same scene.
import { eventsOf } from "./frames.js";

const MARKS = { good: "✓", bad: "✗" };

class Scene {
  constructor(article) {
    this.name = article.dataset.scene;
    this.button = article.querySelector("button");
    this.running = false;
    this.seen = false;
    article.append(document.querySelector("#logs").content.cloneNode(true));
    this.logs = [...article.querySelectorAll(".log")];
    for (const log of this.logs) add(log.querySelector("ol"), { text: "not run yet" });
    this.button.addEventListener("click", () => this.run());
  }

  async run() {
    if (this.running) return;
    this.running = this.seen = true;
    this.button.ariaDisabled = "true"; // and not disabled, or it would lose the focus
    this.button.textContent = "Running";
    this.clear();
    try {
      for await (const { type, data } of eventsOf(`scenes/${this.name}`)) {
        if (type === "waiting") continue;
        const log = this.logs.find((one) => one.dataset.package === data.package);
        if (type === "line") add(log.querySelector("ol"), data);
        else show(log.querySelector(".verdict"), data);
      }
    } catch (error) {
      for (const log of this.logs)
        add(log.querySelector("ol"), { text: `The scene has failed: ${error.message}` });
    }
    this.running = false;
    this.button.ariaDisabled = "false";
    this.button.textContent = "Run again";
  }

  clear() {
    for (const log of this.logs) {
      log.querySelector("ol").replaceChildren();
      log.querySelector(".verdict").replaceChildren();
    }
  }
}

function add(list, { seconds, text, outcome }) {
  const entry = document.createElement("li");
  const time = document.createElement("time");
  const what = document.createElement("span");
  time.textContent = seconds === undefined ? "" : `${seconds.toFixed(2)} s`;
  what.textContent = text;
  if (outcome) what.className = outcome;
  entry.append(time, what);
  list.append(entry);
}

function show(verdict, { text, outcome }) {
  verdict.className = `verdict ${outcome}`;
  verdict.textContent = `${MARKS[outcome]} ${text}`;
}

const scenes = [...document.querySelectorAll("[data-scene]")].map((one) => new Scene(one));

/** Run the scenes that have not run on this page, one after the other. */
export async function runScenes() {
  for (const scene of scenes) if (!scene.seen) await scene.run();
}
