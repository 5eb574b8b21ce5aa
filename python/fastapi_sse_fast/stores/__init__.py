"""Where the logs of channels and runs are kept."""

from .memory import MemoryStore
from .store import History, Store

__all__ = ["History", "MemoryStore", "Store"]
