"""Measures whole streams over real sockets, side by side.

What `python -m fastapi_sse_fast bench` runs, and what `benches/` of the source runs at
length. Nothing here is imported by an application.
"""
