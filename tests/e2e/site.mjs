// Checks pages with axe-core: `node site.mjs <url>...` prints, as JSON, which rules of
// WCAG 2.1 AA each page violates, in light and dark.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const RULES = { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] };

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM,
  args: ["--no-sandbox", "--disable-gpu"],
});
const found = {};
for (const colorScheme of ["light", "dark"]) {
  for (const url of process.argv.slice(2)) {
    const page = await browser.newPage({ colorScheme });
    await page.goto(url);
    await page.evaluate(AXE);
    const { violations } = await page.evaluate((rules) => axe.run(rules), RULES);
    const texts = violations.map(({ id, nodes }) => `${id}: ${nodes[0].html} (${nodes.length})`);
    if (texts.length) found[`${url} (${colorScheme})`] = texts;
    await page.close();
  }
}
await browser.close();
console.log(JSON.stringify(found));
