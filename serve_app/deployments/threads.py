"""The threads in which a replica waits for the store."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

__all__ = ["wait_in_threads"]

STORE_THREADS = 32
"""Requests of the store at once. Python's default, cores + 4, is for work that computes; these threads wait."""


def wait_in_threads() -> None:
    """Have asyncio.to_thread, whoever calls it in this replica, use so many. To be called in its event loop."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(STORE_THREADS, thread_name_prefix="store"))
