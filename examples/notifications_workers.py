"""Notifications over several workers, with Redis or Valkey.

    export REDIS_URL=redis://localhost
    uvicorn notifications_workers:app --app-dir examples --workers 4

serves it. It is `notifications.py` with two differences: the store is in Redis, and so
is the list of notifications, which every worker must find. What is sent to one worker
arrives at the clients of all.

    curl http://127.0.0.1:8000/notifications --json '{"text": "Lunch is ready"}'
    curl http://127.0.0.1:8000/notifications --json '{"text": "Hello", "to": "ada"}'
"""

import os
from typing import Annotated

from fastapi import Cookie, Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel
from redis.asyncio import Redis

from fastapi_sse_fast import (
    Channels,
    EventSourceResponse,
    LastEventID,
    ServerSentEvent,
    StoreError,
)
from fastapi_sse_fast.stores import RedisStore

redis = Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost"))
store = RedisStore(redis)  # opens separate connections
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


async def current_user(user: Annotated[str, Cookie()] = "ada") -> str:
    return user  # stands for your authentication


User = Annotated[str, Depends(current_user)]


def channels_of(user: str) -> list[str]:
    return [f"user:{user}", "all"]


@app.get("/inbox")
async def read_inbox(user: User) -> Inbox:
    position = await channels.position(channels_of(user))  # before the query
    saved = await redis.lrange("notifications", 0, -1)  # stands for your database
    notifications = [Notification.model_validate_json(one) for one in saved]
    mine = [one for one in notifications if one.to in (user, None)]
    return Inbox(position=position, notifications=mine)


@app.get("/inbox/events")
async def stream_inbox(user: User, last: LastEventID) -> EventSourceResponse:
    return EventSourceResponse(channels.subscribe(channels_of(user), last))


@app.post("/notifications")
async def notify(message: Message) -> Notification:
    number = await redis.incr("notifications:last")
    notification = Notification(id=number, **message.model_dump())
    await redis.rpush("notifications", notification.model_dump_json())
    await channels.publish(
        "all" if message.to is None else f"user:{message.to}",
        ServerSentEvent(event="notification", data=notification),
    )
    return notification


@app.exception_handler(StoreError)
async def store_is_not_available(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse(
        {"detail": "Try again later."}, status_code=503, headers={"Retry-After": "5"}
    )


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
