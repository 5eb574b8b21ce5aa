"""The server benchmark: compares whole streams over real sockets.

`python -m fastapi_sse_fast bench` runs a short version of it, and `benches/` in the
source distribution the full one. Applications import nothing from here.
"""
