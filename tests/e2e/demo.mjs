// Drives the demo page: `node demo.mjs <url> <scenario> <directory of pictures>` prints
// what the scenario saw, as JSON, with all that the console said of errors.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

import { relay } from "./relay.mjs";

const [url, scenario, pictures] = process.argv.slice(2);
const TIMEOUT = 150_000;
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
const DESKTOP = { width: 1200, height: 900 };
const PHONE = { width: 360, height: 780 };
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const CUT = '#wire [name=cut][aria-disabled="false"]';
const CONNECT = "#wire form button:first-child";

const status = (page, section) => page.locator(`${section} .status`);
const text = (page, selector) => page.locator(selector).textContent();

async function until(page, section, state) {
  await page.locator(`${section} .status[data-state="${state}"]`).waitFor();
  return status(page, section).textContent();
}

async function counts(page) {
  const read = (all) => all.map((one) => [one.dataset.count, Number(one.textContent)]);
  return Object.fromEntries(await page.locator("[data-count]").evaluateAll(read));
}

/** Wait until a race is over, and return what the page shows of it. */
async function raced(page) {
  await page.locator('#race button:text("Run again")').waitFor();
  const lanes = await page.locator(".lane").evaluateAll((all) =>
    all.map((lane) => {
      const figures = [...lane.querySelectorAll("[data-figure]")];
      return {
        package: lane.dataset.package,
        ...Object.fromEntries(figures.map((one) => [one.dataset.figure, one.textContent])),
      };
    }),
  );
  return { large: await text(page, ".large"), detail: await text(page, ".detail"), lanes };
}

/** Wait until all scenes are over, and return what the page shows of them. */
async function played(page) {
  for (const button of await page.locator('#scenes button').all())
    await button.and(page.locator('button:text("Run again")')).waitFor();
  return page.locator("#scenes .log").evaluateAll((all) =>
    all.map((log) => ({
      scene: log.closest("article").dataset.scene,
      package: log.dataset.package,
      lines: [...log.querySelectorAll("li span")].map((line) => line.textContent),
      verdict: log.querySelector(".verdict").textContent,
    })),
  );
}

/** Wait until the reply has some tokens more than now, and return it. */
async function replied(page, more = 10) {
  const shown = () => parseInt(document.querySelector("#chat .status").textContent) || 0;
  const least = (await page.evaluate(shown)) + more;
  await page.waitForFunction(
    (number) => parseInt(document.querySelector("#chat .status").textContent) >= number,
    least,
  );
  return text(page, ".reply");
}

/** Return what a page shows of a chat that is over. */
async function over(page, state) {
  const said = await until(page, "#chat", state);
  return { said, reply: await text(page, ".reply"), button: await text(page, "#chat button") };
}

async function ask(page, model, rate) {
  await page.locator("#chat select").selectOption(model);
  await page.locator("#chat [name=rate]").fill(rate);
  await page.locator("#chat form button").click();
}

/** Wait until the number that the page shows is this, or greater. */
function reach(page, name, number) {
  return page.waitForFunction(
    ([of, least]) => Number(document.querySelector(`[data-count="${of}"]`).textContent) >= least,
    [name, number],
  );
}

/** Return what axe-core finds wrong. */
async function violations(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run());
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
}

const sizes = () => {
  const { scrollWidth, clientWidth } = document.documentElement;
  return { scrolled: scrollWidth, visible: clientWidth };
};

/** See all that the page does by itself. */
async function watchAll(page) {
  const race = await raced(page);
  const scenes = await played(page);
  await until(page, "#chat", "done");
  await page.locator('#wire .status:text("Disconnected")').waitFor();
  return {
    race,
    scenes,
    reply: await text(page, ".reply"),
    counts: await counts(page),
    machine: await text(page, "#machine"),
    shifted: await page.evaluate(() => window.shifted),
    sizes: await page.evaluate(sizes),
  };
}

// In those of `hidden` nobody can see the page, so it does nothing by itself.
const scenarios = {
  async desktop(page) {
    const seen = await watchAll(page);
    const bottom = (article) => Math.ceil(article.getBoundingClientRect().bottom + scrollY);
    const end = await page.locator("[data-scene=disconnect]").evaluate(bottom);
    await page.setViewportSize({ ...DESKTOP, height: end + 24 });
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      seen[colorScheme] = await violations(page);
      await page.screenshot({ path: `${pictures}/demo-${colorScheme}.png` });
    }
    return { title: await page.title(), ...seen };
  },

  async phone(page) {
    const seen = await watchAll(page);
    await page.emulateMedia({ colorScheme: "dark" });
    await page.screenshot({ path: `${pictures}/demo-phone.png` });
    return { ...seen, dark: await violations(page) };
  },

  async twoPages(page, context) {
    const other = await context.newPage();
    await other.goto(url);
    return { pages: await Promise.all([page, other].map(raced)) };
  },
};

// In these the page asks by itself, and nothing else: no race begins.
const chats = {
  async reloadedChat(page) {
    const before = await replied(page);
    await page.reload();
    const after = await replied(page);
    return { before, after, ...(await over(page, "done")) };
  },

  async twoChats(page, context) {
    await replied(page);
    const other = await context.newPage();
    await other.goto(url);
    await replied(other);
    await other.locator("#chat form button").click();
    return { pages: await Promise.all([page, other].map((one) => over(one, "idle"))) };
  },

  async replacedChat(page, context) {
    await replied(page);
    await page.locator("#chat form button").click();
    await over(page, "idle");
    const other = await context.newPage();
    await other.goto(url);
    await other.locator('#chat .status:text("Stopped")').waitFor();
    await ask(other, "replay", "20");
    await replied(other);
    await ask(page, "replay", "1000");
    return { old: await over(other, "idle"), ...(await over(page, "done")) };
  },

  async sleepingChat(page, context, { link }) {
    const before = await replied(page);
    link.sleep();
    const lost = await until(page, "#chat", "error");
    await page.waitForTimeout(4000); // longer than a browser waits before it reconnects
    const { refused } = link;
    link.wake();
    return { before, lost, refused, ...(await over(page, "done")) };
  },
};

const hidden = {
  async nothing(page) {
    await page.waitForTimeout(500);
    const seen = { large: await text(page, ".large"), wire: await status(page, "#wire").textContent() };
    await page.evaluate(() => {
      window.visibility = "visible";
      document.dispatchEvent(new Event("visibilitychange"));
    });
    await page.locator('.lane.theirs .state:not(:text("waiting"))').waitFor();
    return seen;
  },

  async burst(page) {
    await page.locator("#race [name=rate]").selectOption("0");
    const streams = await page.locator("#race [name=streams]").inputValue();
    await page.locator("#race button").click();
    return { streams, ...(await raced(page)) };
  },

  async stoppedRace(page) {
    await page.locator("#race button").click();
    await page.locator('.large:text("Measuring")').waitFor();
    await page.locator("#race button").click();
    return { large: (await raced(page)).large };
  },

  async chat(page) {
    await ask(page, "replay", "1000");
    const done = await until(page, "#chat", "done");
    return { done, reply: await text(page, ".reply") };
  },

  async stoppedChat(page) {
    await ask(page, "replay", "20");
    await page.waitForFunction(() => document.querySelector(".reply").textContent);
    await page.locator("#chat form button").click();
    await page.locator('#chat .status:text("Stopped")').waitFor();
    return { idle: await status(page, "#chat").textContent() };
  },

  async brokenChats(page) {
    const said = {};
    for (const model of ["replay-busy", "replay-broken"]) {
      await ask(page, model, "1000");
      said[model] = await until(page, "#chat", "error");
      await status(page, "#chat").evaluate((element) => (element.dataset.state = "idle"));
    }
    return { said };
  },

  async resume(page) {
    await page.locator(CONNECT).click();
    for (const cuts of [1, 2, 3]) {
      await reach(page, "events", 3 * cuts);
      await page.locator(CUT).click();
      await reach(page, "reconnects", cuts);
    }
    await reach(page, "events", 11);
    await reach(page, "pings", 1);
    await page.locator(CONNECT).click();
    await until(page, "#wire", "idle");
    return {
      counts: await counts(page),
      frames: await page.locator("#wire li pre").allTextContents(),
    };
  },

  // By keys alone, from the top of the page
  async keyboard(page) {
    const focused = () => page.evaluate(() => document.activeElement.outerHTML);
    const ring = () => page.evaluate(() => getComputedStyle(document.activeElement).outlineWidth);
    const tabTo = async (what) => {
      do {
        await page.keyboard.press("Tab");
        rings.push(await ring());
      } while (!(await page.evaluate((to) => document.activeElement.matches(to), what)));
    };
    const rings = [];
    await tabTo("#race button");
    await page.keyboard.press("Enter");
    await page.locator('.large:text("Measuring")').waitFor();
    await page.keyboard.press("Enter");
    await page.locator('.large:text("Stopped")').waitFor();
    await tabTo("[data-scene=fail] button");
    await page.keyboard.press("Enter");
    await page.locator('[data-scene=fail] button:text("Run again")').waitFor();
    await tabTo("#chat [name=prompt]");
    await page.keyboard.press("Control+A");
    await page.keyboard.type("By keyboard");
    await tabTo("#chat [name=rate]");
    await page.keyboard.press("Control+A");
    await page.keyboard.type("1000");
    await page.keyboard.press("Enter");
    await until(page, "#chat", "done");
    await tabTo(CONNECT);
    await page.keyboard.press("Enter");
    await reach(page, "events", 1);
    await tabTo("#wire [name=cut]");
    await page.keyboard.press("Enter");
    await reach(page, "reconnects", 1);
    return {
      verdict: await text(page, "[data-scene=fail] .ours .verdict"),
      prompt: await page.locator("#chat [name=prompt]").inputValue(),
      focused: await focused(),
      rings: [...new Set(rings)],
    };
  },
};

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
const context = await browser.newContext({
  viewport: scenario === "phone" ? PHONE : DESKTOP,
  deviceScaleFactor: 1.5,
});
context.setDefaultTimeout(TIMEOUT);
const errors = [];
context.on("page", (page) => {
  page.on("console", (line) => line.type() === "error" && errors.push(line.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("request", (request) => {
    const { hostname, protocol } = new URL(request.url());
    if (hostname !== "127.0.0.1" && protocol !== "data:") errors.push(`asks ${request.url()}`);
  });
});
await context.addInitScript(() => {
  window.shifted = 0;
  const add = (list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
  };
  new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });
});
if (scenario in hidden)
  await context.addInitScript(() => {
    window.visibility = "hidden";
    Object.defineProperty(document, "visibilityState", { get: () => window.visibility });
  });
const posts = [];
context.on("request", (request) => {
  if (request.method() === "POST") posts.push(new URL(request.url()).pathname);
});
if (scenario in chats) await context.route("**/race?*", () => {}); // it stays without an answer
const link = await relay(url);
try {
  const page = await context.newPage();
  await page.goto(scenario === "sleepingChat" ? link.url : url);
  const all = { ...scenarios, ...chats, ...hidden };
  const seen = await all[scenario](page, context, { link });
  if (scenario in chats) seen.posts = posts;
  console.log(JSON.stringify({ ...seen, errors }));
} finally {
  await browser.close();
  link.close();
}
