"""A chat whose answer continues when the page is reloaded.

`uvicorn resumable_chat:app --app-dir examples` serves it. Open http://127.0.0.1:8000/,
ask, reload the page during the answer, and stop the answer in another tab.
"""

from collections.abc import AsyncIterator

import anyio
from fastapi import FastAPI, HTTPException, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from fastapi_sse_fast import LastEventID, RunExists, Runs, ServerSentEvent
from fastapi_sse_fast.stores import MemoryStore

store = MemoryStore()
runs = Runs(store, timeout=120.0)
app = FastAPI(lifespan=store.lifespan)


class Question(BaseModel):
    count_to: int


async def answer(question: Question) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(event="question", data=question)
    for number in range(1, question.count_to + 1):  # stands for your model
        yield ServerSentEvent(event="token", data={"text": f"{number} "})
        await anyio.sleep(0.1)


@app.post("/chats/{chat}", status_code=202)
async def ask(chat: int, question: Question) -> dict[str, str]:
    try:
        await runs.start(f"chat:{chat}", answer, question)
    except RunExists:
        raise HTTPException(409, "The last answer is not complete.") from None
    return {"stream": f"/chats/{chat}/stream"}


@app.get("/chats/{chat}/stream")
async def stream(chat: int, last: LastEventID) -> Response:
    return await runs.response(f"chat:{chat}", last)


@app.post("/chats/{chat}/stop")
async def stop(chat: int) -> bool:
    return await runs.cancel(f"chat:{chat}")


PAGE = """
<!doctype html>
<title>Chat</title>
<form>Count to <input name="count_to" value="100"> <button>Ask</button></form>
<p><button id="stop">Stop</button></p>
<p id="answer"></p>
<p id="status"></p>
<script type="module">
const [form, stop, answer, status] = ["form", "#stop", "#answer", "#status"].map(
  (selector) => document.querySelector(selector),
);
let source;

function listen() {
  source?.close();
  source = new EventSource("/chats/1/stream");
  source.addEventListener("question", () => {
    answer.textContent = ""; // the first event of every answer
    status.textContent = "running";
  });
  source.addEventListener("token", (event) => {
    answer.append(JSON.parse(event.data).text);
  });
  source.addEventListener("end", (event) => {
    source.close();
    status.textContent = JSON.parse(event.data).status; // "done" or "cancelled"
  });
  source.addEventListener("error", (event) => {
    if (event.data === undefined) return; // connection lost: the browser reconnects
    source.close();
    status.textContent = JSON.parse(event.data).code; // such as "failed"
  });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const count_to = Number(new FormData(form).get("count_to"));
  const response = await fetch("/chats/1", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ count_to }),
  });
  if (response.ok) listen();
  else status.textContent = (await response.json()).detail;
});

stop.addEventListener("click", () => fetch("/chats/1/stop", { method: "POST" }));

listen(); // to an answer that is running already
</script>
"""


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE
