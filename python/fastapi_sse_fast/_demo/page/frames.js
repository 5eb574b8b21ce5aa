// Reading a stream by hand: what EventSource does, but for all to see.

/** Yields the frames of a response as they come, without the blank line at their end. */
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

/** The value of a field of a frame, or undefined. */
export function field(frame, name) {
  const prefix = `${name}:`;
  const lines = frame.split("\n").filter((line) => line.startsWith(prefix));
  if (!lines.length) return undefined;
  return lines.map((line) => line.slice(prefix.length).replace(/^ /, "")).join("\n");
}

/** Shows what a panel is doing; the state is idle, busy, done or error. */
export function say(status, state, text) {
  status.dataset.state = state;
  status.textContent = text;
}

/** Whether a box is scrolled to its end, and so should stay there. */
export function atEnd(box) {
  return box.scrollHeight - box.scrollTop - box.clientHeight < 24;
}
