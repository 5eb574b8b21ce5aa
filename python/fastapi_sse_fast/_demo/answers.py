"""The replies of `streams.py` as runs, for the scene in which the page is reloaded.

Only the server with fastapi_sse_fast has these routes: `fastapi.sse` has no runs.
"""

from fastapi import APIRouter, Response

from fastapi_sse_fast import LastEventID, Runs
from fastapi_sse_fast.stores import MemoryStore

from .streams import Question, model

store = MemoryStore()
runs = Runs(store)
router = APIRouter(lifespan=store.lifespan)


@router.post("/answers")
async def ask(question: Question) -> None:
    await runs.start(question.id, model, question)


@router.get("/answers/{id}")
async def answer(id: str, last: LastEventID) -> Response:
    return await runs.response(id, last)
