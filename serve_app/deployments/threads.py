"""The threads in which a replica waits for the store."""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

__all__ = ["wait_in_threads"]

STORE_THREADS = 32
"""Requests of the store at once. Python's default, cores + 4, is for work that computes; these threads wait."""
SWITCH_S = 0.001
"""How long a thread may keep all others from running Python, of Python's 0.005. A request of the store is many short
steps between waits, and before each of them the event loop and other requests would hold it up for so long."""


def wait_in_threads() -> None:
    """Have asyncio.to_thread, whoever calls it in this replica, use so many. To be called in its event loop."""
    sys.setswitchinterval(SWITCH_S)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store"))
