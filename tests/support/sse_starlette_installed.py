"""A pytest plugin that gives another project's tests our `sse_starlette`."""

from fastapi_sse_fast.sse_starlette import install

install()
