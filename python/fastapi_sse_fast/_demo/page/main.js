// What the page does by itself, once somebody can see it.
import { startChat } from "./chat.js";
import { runRace } from "./race.js";
import { runScenes } from "./scenes.js";
import { startWire } from "./wire.js";

function visible() {
  if (document.visibilityState === "visible") return Promise.resolve();
  return new Promise((resolve) =>
    document.addEventListener("visibilitychange", () => resolve(visible()), { once: true }),
  );
}

async function showMachine() {
  const machine = await (await fetch("machine")).json();
  const parts = Object.entries(machine).map((pair) => pair.join(" "));
  document.querySelector("#machine").textContent = parts.join(", ");
}

await visible();
showMachine();
// One after the other: a browser opens six connections to a server, for all tabs together.
startChat().then(startWire);
if (await runRace()) runScenes();
