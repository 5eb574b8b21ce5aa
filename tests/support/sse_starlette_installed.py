"""A plugin of pytest that gives the tests of another project our `sse_starlette`."""

from fastapi_sse_fast.sse_starlette import install

install()
