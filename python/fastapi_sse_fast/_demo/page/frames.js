// Reading a stream without EventSource, so that every frame can be shown.

/** Yield the frames of a response as they arrive, without the blank line at their end. */
export async function* framesOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      // This server ends its lines with LF. A reader of any stream takes CR and CRLF too.
      const frames = (rest + value).split("\n\n");
      rest = frames.pop();
      yield* frames;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Return the value of a field of a frame, or undefined. */
export function field(frame, name) {
  const prefix = `${name}:`;
  const lines = frame.split("\n").filter((line) => line.startsWith(prefix));
  if (!lines.length) return undefined;
  return lines.map((line) => line.slice(prefix.length).replace(/^ /, "")).join("\n");
}

/** Yield the events of a stream until `done`. Without that event, it was cut off. */
export async function* eventsOf(path, signal) {
  const response = await fetch(path, { signal });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  for await (const frame of framesOf(response)) {
    const type = field(frame, "event"); // a ping has none
    if (type === "done") return;
    const data = field(frame, "data");
    if (type) yield { type, data: data && JSON.parse(data) };
  }
  throw new Error("the connection was lost");
}

/** Show what a panel is doing; the state is idle, busy, done or error. */
export function say(status, state, text) {
  status.dataset.state = state;
  status.textContent = text;
}

/** Return whether a box is scrolled to its end, and so should stay there. */
export function atEnd(box) {
  return box.scrollHeight - box.scrollTop - box.clientHeight < 24;
}
