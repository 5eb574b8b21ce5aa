"""Notifications in all open pages of a user, without a missed one.

`uvicorn notifications:app --app-dir examples` serves it. Open http://127.0.0.1:8000/ in
several tabs, and send notifications to everybody or to one user. Without a cookie, you
are the user `ada`.

    curl http://127.0.0.1:8000/notifications --json '{"text": "Lunch is ready"}'
    curl http://127.0.0.1:8000/notifications --json '{"text": "Hello", "to": "ada"}'
"""

from itertools import count
from typing import Annotated

from fastapi import Cookie, Depends, FastAPI
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from fastapi_sse_fast import (
    Channels,
    EventSourceResponse,
    LastEventID,
    ServerSentEvent,
)
from fastapi_sse_fast.stores import MemoryStore

store = MemoryStore()
channels = Channels(store)
app = FastAPI(lifespan=store.lifespan)


class Notification(BaseModel):
    id: int
    text: str
    to: str | None = None  # everybody


class Message(BaseModel):
    text: str
    to: str | None = None


class Inbox(BaseModel):
    position: str
    notifications: list[Notification]


saved: list[Notification] = []  # stands for your database
numbers = count(1)


async def current_user(user: Annotated[str, Cookie()] = "ada") -> str:
    return user  # stands for your authentication


User = Annotated[str, Depends(current_user)]


def channels_of(user: str) -> list[str]:
    return [f"user:{user}", "all"]


@app.get("/inbox")
async def read_inbox(user: User) -> Inbox:
    position = await channels.position(channels_of(user))  # before the query
    mine = [one for one in saved if one.to in (user, None)]
    return Inbox(position=position, notifications=mine)


@app.get("/inbox/events")
async def stream_inbox(user: User, last: LastEventID) -> EventSourceResponse:
    return EventSourceResponse(channels.subscribe(channels_of(user), last))


@app.post("/notifications")
async def notify(message: Message) -> Notification:
    notification = Notification(id=next(numbers), **message.model_dump())
    saved.append(notification)  # before it is published
    await channels.publish(
        "all" if message.to is None else f"user:{message.to}",
        ServerSentEvent(event="notification", data=notification),
    )
    return notification


PAGE = """
<!doctype html>
<title>Notifications</title>
<h1>Notifications</h1>
<ul></ul>
<script type="module">
const list = document.querySelector("ul");

function show({ id, text }) {
  if (document.getElementById(`n${id}`)) return; // it is in the list already
  const item = document.createElement("li");
  item.id = `n${id}`;
  item.textContent = text;
  list.prepend(item);
}

async function load() {
  const response = await fetch("/inbox");
  const { position, notifications } = await response.json();
  notifications.forEach(show);
  const source = new EventSource(`/inbox/events?last_event_id=${position}`);
  source.addEventListener("notification", (event) => show(JSON.parse(event.data)));
  source.addEventListener("gap", () => {
    source.close();
    load();
  });
}

load();
</script>
"""


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE
