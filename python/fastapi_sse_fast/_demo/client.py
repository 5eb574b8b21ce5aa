"""The HTTP client of the scenes. It notices a response that is not complete.

It needs h11, which uvicorn depends on.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h11

from .contestant import HOST

FAILURES = (OSError, h11.RemoteProtocolError)
"""No connection, or one that closed before the response was complete."""


class Response:
    """The head of a response, and its body as it comes."""

    def __init__(
        self,
        status: int,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
    ) -> None:
        self.status = status
        self._connection = connection
        self._reader = reader

    async def events(self) -> AsyncIterator[str]:
        """Yield the fields of each event as text, without pings."""
        rest = ""
        async for part in self._parts():
            *frames, rest = (rest + part).split("\n\n")
            for frame in frames:
                if not frame.startswith(":"):
                    yield frame

    async def text(self) -> str:
        return "".join([part async for part in self._parts()])

    async def _parts(self) -> AsyncIterator[str]:
        while True:
            event = await next_event(self._connection, self._reader)
            if isinstance(event, h11.EndOfMessage):
                return
            assert isinstance(event, h11.Data)
            # The streams of the demo are cut between characters.
            yield event.data.decode()


@asynccontextmanager
async def request(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> AsyncIterator[Response]:
    """Send a request and wait for the head. The connection closes with the block."""
    content = b"" if body is None else json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        connection = h11.Connection(h11.CLIENT)
        fields = {
            "Host": HOST,
            "Content-Type": "application/json",
            "Content-Length": str(len(content)),
            **(headers or {}),
        }
        for event in (
            h11.Request(method=method, target=path, headers=[*fields.items()]),
            h11.Data(data=content),
            h11.EndOfMessage(),
        ):
            writer.write(connection.send(event) or b"")
        head = await next_event(connection, reader)
        assert isinstance(head, h11.Response)
        yield Response(head.status_code, connection, reader)
    finally:
        writer.close()


async def next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> Any:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(65536))
    return event
