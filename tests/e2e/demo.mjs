// Drives the demo page: `node demo.mjs <url> <scenario> <directory of pictures>` prints
// what the scenario saw, as JSON, with all that the console said of errors.
import { chromium } from "playwright-core";

const [url, scenario, pictures] = process.argv.slice(2);
const TIMEOUT = 120_000;
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

const CUT = '#wire [name=cut][aria-disabled="false"]';

const status = (page, section) => page.locator(`${section} .status`).first();

async function until(page, section, state) {
  await page.locator(`${section} .status[data-state="${state}"]`).first().waitFor();
  return status(page, section).textContent();
}

async function figures(page) {
  const read = (all) => all.map((one) => [one.dataset.figure, Number(one.textContent)]);
  return Object.fromEntries(await page.locator("[data-figure]").evaluateAll(read));
}

/** Runs a race. The pace comes first: to choose it sets the other fields. */
async function run(page, asked) {
  for (const [name, value] of Object.entries(asked)) {
    const field = page.locator(`#race [name="${name}"]`);
    await (name === "pause" ? field.selectOption(value) : field.fill(value));
  }
  await page.locator("#race form button").click();
  const verdict = await until(page, "#race", "done");
  const lanes = await page.locator("#race .lane").evaluateAll((all) =>
    all.map((lane) => ({
      package: lane.dataset.package,
      received: lane.querySelector("progress").value,
      seconds: parseFloat(lane.querySelector(".time").textContent),
      microseconds: Number(lane.textContent.match(/([\d.,]+) µs/)[1].replace(",", "")),
    })),
  );
  return { verdict, lanes };
}

async function ask(page, model, rate) {
  await page.locator("#chat select").selectOption(model);
  await page.locator("#chat [name=rate]").fill(rate);
  await page.locator("#chat form button").click();
}

/** Waits until the number that the page shows is this, or greater. */
function reach(page, name, number) {
  return page.waitForFunction(
    ([of, least]) =>
      Number(document.querySelector(`[data-figure="${of}"]`).textContent) >= least,
    [name, number],
  );
}

const scenarios = {
  async page(page) {
    await page.locator("#chat option").nth(2).waitFor({ state: "attached" });
    await page.locator("#race form button:enabled").waitFor();
    return {
      title: await page.title(),
      versions: await page.locator("#versions").textContent(),
    };
  },

  async chat(page) {
    await ask(page, "replay", "1000");
    const done = await until(page, "#chat", "done");
    return { done, reply: await page.locator(".reply").textContent() };
  },

  async stoppedChat(page) {
    await ask(page, "replay", "20");
    await page.waitForFunction(() => document.querySelector(".reply").textContent);
    await page.locator("#chat form button").click();
    return { idle: await until(page, "#chat", "idle") };
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

  async race(page) {
    return {
      burst: await run(page, { pause: "0", streams: "8", events: "500" }),
      paced: await run(page, { pause: "0.05", streams: "200", events: "20" }),
    };
  },

  async resume(page) {
    await page.locator("#wire form button").first().click();
    for (const cuts of [1, 2, 3]) {
      await reach(page, "events", 3 * cuts);
      await page.locator(CUT).click();
      await reach(page, "reconnects", cuts);
    }
    await reach(page, "events", 11);
    await reach(page, "pings", 1);
    await page.locator("#wire form button").first().click();
    await until(page, "#wire", "idle");
    return {
      figures: await figures(page),
      frames: await page.locator("#wire pre").allTextContents(),
    };
  },

  async tutorial(page) {
    // One after the other: the frames of one move the buttons below it.
    for (const entry of await page.locator("#tutorial li").all()) {
      await entry.locator("button").click();
      await entry.locator(".status[data-state=done]").waitFor();
    }
    const frames = page.locator("#tutorial pre");
    return { frames: await frames.allTextContents() };
  },

  // By keys alone, from the top of the page
  async keyboard(page) {
    const press = async (...keys) => {
      for (const key of keys) await page.keyboard.press(key);
    };
    await page.locator("#race form button:enabled").waitFor();
    await press("Tab", "Control+A");
    await page.keyboard.type("By keyboard");
    await press("Tab", "Tab", "Control+A");
    await page.keyboard.type("1000");
    await press("Enter");
    await until(page, "#chat", "done");
    await press("Tab", "Tab", "Tab", "Enter"); // Send, the reply, Connect
    await reach(page, "events", 1);
    await press("Tab", "Enter"); // Cut the connection
    await reach(page, "reconnects", 1);
    return {
      prompt: await page.locator("#chat [name=prompt]").inputValue(),
      focused: await page.evaluate(() => document.activeElement.name),
    };
  },

  async narrow(page) {
    await page.setViewportSize({ width: 360, height: 780 });
    await scenarios.tutorial(page);
    await run(page, { pause: "0", streams: "2", events: "100" });
    const sizes = () => {
      const root = document.documentElement;
      return { scrolled: root.scrollWidth, visible: root.clientWidth };
    };
    return page.evaluate(sizes);
  },

  // Least contrast of any text that is shown with what it stands on, in both schemes
  async contrast(page) {
    await scenarios.tutorial(page);
    await scenarios.brokenChats(page);
    await page.locator("#wire form button").first().click();
    await reach(page, "events", 1);
    await page.locator(CUT).click();
    await reach(page, "reconnects", 1);
    const least = () => {
      const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
      const luminance = (colour) =>
        channels(colour)
          .slice(0, 3)
          .map((one) => one / 255)
          .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
          .reduce((sum, one, index) => sum + one * [0.2126, 0.7152, 0.0722][index], 0);
      const ground = (element) => {
        const { backgroundColor } = getComputedStyle(element);
        return channels(backgroundColor)[3] === 0 ? ground(element.parentElement) : backgroundColor;
      };
      const ratio = (element) => {
        const pair = [getComputedStyle(element).color, ground(element)].map(luminance);
        return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
      };
      const said = (element) =>
        [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
      const shown = [...document.body.querySelectorAll("*")].filter(
        (element) => said(element) && element.checkVisibility() && element.ariaDisabled !== "true",
      );
      return Math.min(...shown.map(ratio));
    };
    const seen = {};
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      seen[colorScheme] = { ground, least: await page.evaluate(least) };
    }
    return seen;
  },

  async unlabelled(page) {
    const names = await page.locator("input, select, button, progress, svg, [tabindex]");
    const nameless = (all) =>
      all
        .filter((one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim()))
        .map((one) => one.outerHTML);
    return { nameless: await names.evaluateAll(nameless) };
  },

  async pictures(page) {
    const shoot = async (name, colorScheme, width, height, section) => {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height });
      await page.locator(section).evaluate((element) => {
        document.activeElement.blur(); // takes its ring off
        const boxes = document.querySelectorAll(".frames, .reply");
        for (const box of boxes) box.scrollTop = box.scrollHeight;
        element.scrollIntoView();
      });
      await page.screenshot({ path: `${pictures}/${name}.png` });
    };
    const racing = run(page, { pause: "0", streams: "20", events: "1000" });
    await page.waitForFunction(
      () => document.querySelector(".theirs progress").value > 0.4,
    );
    await shoot("demo-phone", "dark", 360, 780, "#race");
    await racing;
    await ask(page, "replay", "100");
    await page.locator("#wire form button").first().click();
    await reach(page, "pings", 1);
    await page.locator(CUT).click();
    await reach(page, "events", 12);
    await until(page, "#chat", "done");
    await page.setViewportSize({ width: 1200, height: 1200 });
    const end = await page
      .locator("#race")
      .evaluate((race) => Math.ceil(race.getBoundingClientRect().bottom + scrollY));
    await shoot("demo-light", "light", 1200, end + 24, "body");
    await shoot("demo-dark", "dark", 1200, end + 24, "body");
    return {};
  },
};

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
const page = await browser.newPage({ deviceScaleFactor: 1.5 });
page.setDefaultTimeout(TIMEOUT);
const errors = [];
page.on("console", (line) => line.type() === "error" && errors.push(line.text()));
page.on("pageerror", (error) => errors.push(String(error)));
page.on("request", (request) => {
  const { hostname, protocol } = new URL(request.url());
  if (hostname !== "127.0.0.1" && protocol !== "data:") errors.push(`asks ${request.url()}`);
});
try {
  await page.goto(url);
  const seen = await scenarios[scenario](page);
  console.log(JSON.stringify({ ...seen, errors }));
} finally {
  await browser.close();
}
