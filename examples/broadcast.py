"""One publisher and any number of subscribers.

`uvicorn broadcast:app --app-dir examples` serves it. Subscribe and publish with

    curl -N http://127.0.0.1:8000/events
    curl http://127.0.0.1:8000/events --json '{"price": 2.75}'
"""

from typing import Annotated, Any

from fastapi import Body, FastAPI

from fastapi_sse_fast import Channels, EventSourceResponse, LastEventID
from fastapi_sse_fast.stores import MemoryStore

store = MemoryStore()
channels = Channels(store)
app = FastAPI(title="Broadcast", lifespan=store.lifespan)


@app.get("/events")
async def subscribe(last: LastEventID) -> EventSourceResponse:
    return EventSourceResponse(channels.subscribe("prices", last))


@app.post("/events")
async def publish(data: Annotated[Any, Body()]) -> str:
    return await channels.publish("prices", data)
