// Visits pages that run the examples of the documentation. A line of the input is
// {url, steps}; a line of the output is {console, errors, text, other, failure}.
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

import { relay } from "./relay.mjs";

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

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: FLAGS,
});

async function visit({ url, steps }) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  context.setDefaultTimeout(20_000);
  const page = await context.newPage();
  const link = await relay(url);
  let other = null;
  const lines = [];
  const errors = [];
  page.on("console", (message) => {
    (message.type() === "error" ? errors : lines).push(message.text());
  });
  page.on("pageerror", (error) => errors.push(String(error)));

  const actions = {
    click: (name) => page.getByRole("button", { name }).click(),
    async openAnotherTab() {
      other = await context.newPage();
      await other.goto(url);
    },
    clickThere: (name) => other.getByRole("button", { name }).click(),
    containsThere: (text) => other.getByText(text).first().waitFor(),
    showsThere: (text) => other.getByText(text, { exact: true }).waitFor(),
    contains: (text) => page.getByText(text).first().waitFor(),
    fill: ([name, value]) => page.locator(`[name="${name}"]`).fill(value),
    post: ([path, data]) => context.request.post(new URL(path, url).href, { data }),
    reload: () => page.reload(),
    sleep: () => link.sleep(),
    wake: () => link.wake(),
    async logs(text) {
      while (!lines.includes(text)) await page.waitForEvent("console");
    },
    shows: (text) => page.getByText(text, { exact: true }).waitFor(),
    wait: (milliseconds) => page.waitForTimeout(milliseconds),
  };
  let failure = null;
  try {
    const sleeps = steps.some(([action]) => action === "sleep");
    await page.goto(sleeps ? new URL(new URL(url).pathname, link.url).href : url);
    for (const [action, value] of steps) await actions[action](value);
  } catch (error) {
    failure = String(error);
  }
  const textOf = (one) => one.evaluate(() => document.body.innerText);
  const text = await textOf(page);
  const there = other && (await textOf(other));
  await context.close();
  link.close();
  return { console: lines, errors, text, other: there, failure };
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await visit(JSON.parse(line))));
}
await browser.close();
