"""The demo: a page, what it streams from, and the contestants of its race.

`python -m fastapi_sse_fast demo` serves it. `chat.py` and `streams.py` are examples to
read, and each an application of its own.
"""
