"""A worker with Litestar's channels, which `benches/workers.py` compares with."""

import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import redis.asyncio
from litestar import Litestar, get, post
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.redis import RedisChannelsPubSubBackend
from litestar.response import ServerSentEvent

ROW = {"symbol": "ACME", "price": 123.45, "volume": 1234567, "time": "09:30:00.125"}

client = redis.asyncio.Redis.from_url(
    os.environ.get("REDIS_URL", "redis://localhost"), socket_timeout=None
)
plugin = ChannelsPlugin(RedisChannelsPubSubBackend(redis=client), channels=["rows"])


@get("/channels/litestar")
async def subscribe(channels: ChannelsPlugin) -> ServerSentEvent:
    async def events() -> AsyncIterator[str]:
        async with channels.start_subscription(["rows"]) as subscriber:
            async for message in subscriber.iter_events():
                yield message.decode()

    return ServerSentEvent(events())


@post("/channels/litestar", status_code=200)
async def publish(channels: ChannelsPlugin, data: Any) -> dict[str, Any]:
    channels.publish(json.dumps([ROW, time.time()]), "rows")
    return {}


@get("/process/cpu")
async def cpu() -> float:
    return time.process_time()


app = Litestar([subscribe, publish, cpu], plugins=[plugin])
