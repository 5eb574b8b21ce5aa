// Visits pages that run the examples of the documentation. A line of the input is
// {url, steps}; a line of the output is {console, errors, text, failure}.
import { createInterface } from "node:readline";

import { chromium } from "playwright-core";

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
  const lines = [];
  const errors = [];
  page.on("console", (message) => {
    (message.type() === "error" ? errors : lines).push(message.text());
  });
  page.on("pageerror", (error) => errors.push(String(error)));

  const actions = {
    click: (name) => page.getByRole("button", { name }).click(),
    async clickInAnotherTab(name) {
      const other = await context.newPage();
      await other.goto(url);
      await other.getByRole("button", { name }).click();
      await other.close();
    },
    contains: (text) => page.getByText(text).first().waitFor(),
    fill: ([name, value]) => page.locator(`[name="${name}"]`).fill(value),
    post: ([path, data]) => context.request.post(new URL(path, url).href, { data }),
    reload: () => page.reload(),
    async logs(text) {
      while (!lines.includes(text)) await page.waitForEvent("console");
    },
    shows: (text) => page.getByText(text, { exact: true }).waitFor(),
    wait: (milliseconds) => page.waitForTimeout(milliseconds),
  };
  let failure = null;
  try {
    await page.goto(url);
    for (const [action, value] of steps) await actions[action](value);
  } catch (error) {
    failure = String(error);
  }
  const text = await page.evaluate(() => document.body.innerText);
  await context.close();
  return { console: lines, errors, text, failure };
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await visit(JSON.parse(line))));
}
await browser.close();
