"""A chat completion API that OpenAI's clients can talk to.

`uvicorn chat:app --app-dir examples` serves it, and `base_url` is then
`http://127.0.0.1:8000/v1`. A page reads its answers at `/chats/{chat}/stream`, and they
continue when it is reloaded. The code to read, and to copy, is
`python/fastapi_sse_fast/_demo/chat.py`: an installed package has it for its demo.
"""

from fastapi_sse_fast._demo.chat import app

__all__ = ["app"]
