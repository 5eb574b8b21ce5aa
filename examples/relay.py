"""Relay the reply of a model to a page, token by token, with OpenAI's client.

`OPENAI_API_KEY=... uvicorn relay:app --app-dir examples` serves it. Ask with

    curl -N http://127.0.0.1:8000/chat --json '{"text": "Hello"}'

Without a key, serve `chat.py` on another port, set `OPENAI_BASE_URL` to its `/v1`, and
ask for the model `replay`.
"""

import logging
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from openai import APIError, AsyncOpenAI, RateLimitError
from pydantic import BaseModel

from fastapi_sse_fast import EventSourceResponse, ServerSentEvent

logger = logging.getLogger("uvicorn.error")
client = AsyncOpenAI()  # reads OPENAI_API_KEY and OPENAI_BASE_URL


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with client:  # closes its connections when the server shuts down
        yield


app = FastAPI(lifespan=lifespan)
ChatResponse = EventSourceResponse.with_options(error_window=20.0)


class Question(BaseModel):
    text: str
    model: str = "gpt-5-mini"


class Token(BaseModel):
    text: str


@app.post("/chat", response_class=ChatResponse)
async def chat(question: Question) -> AsyncIterable[Token | ServerSentEvent]:
    has_started = False
    try:
        async with await client.chat.completions.create(
            model=question.model,
            messages=[{"role": "user", "content": question.text}],
            stream=True,
        ) as upstream:
            async for chunk in upstream:
                if chunk.choices and chunk.choices[0].delta.content:
                    has_started = True
                    yield Token(text=chunk.choices[0].delta.content)
    except APIError as error:
        logger.warning("the model has failed: %s", error)
        if not has_started:  # so the client can still get a status
            status = 429 if isinstance(error, RateLimitError) else 502
            raise HTTPException(status, "The model is not available.") from error
        yield ServerSentEvent(event="error", data="The model has stopped.")
    else:
        yield ServerSentEvent(raw_data="[DONE]")
