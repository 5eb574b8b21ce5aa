"""Where the logs of channels and runs are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .memory import MemoryStore
from .store import History, Store

if TYPE_CHECKING:
    from .redis import RedisStats, RedisStore
    from .sync_redis import SyncRedisStore, SyncRun

__all__ = [
    "History",
    "MemoryStore",
    "RedisStats",
    "RedisStore",
    "Store",
    "SyncRedisStore",
    "SyncRun",
]


def __getattr__(name: str) -> Any:
    # redis-py is needed only by those who use it, and takes long to import.
    if name in __all__:
        try:
            from . import redis, sync_redis
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != "redis":
                raise
            raise ImportError(
                f"{name} needs redis-py: pip install 'fastapi_sse_fast[redis]'"
            ) from error
        return getattr(sync_redis if name.startswith("Sync") else redis, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
