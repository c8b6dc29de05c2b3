"""torch's threads on a CPU: pools whose workers compute on a number of their own, and numbers that change no bit.

Elementwise kernels treat the end of a thread's part otherwise than its middle, so most numbers of threads give other
last bits. Powers of two do not: the parts of our tensors are then whole vectors.
"""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import torch

__all__ = ["exact_threads", "worker_pool"]


def exact_threads(threads: int) -> int:
    """The largest power of two that is at most `threads`."""
    return 1 << (threads.bit_length() - 1)


def worker_pool(workers: int, threads_each: int, name: str) -> ThreadPoolExecutor:
    """A pool of `workers` threads, each of which computes on `threads_each`; nobody else's number is changed.

    torch keeps the number in each thread, but gives the latest one to threads that are new: so all workers are set
    before the old number is given back.
    """
    before = torch.get_num_threads()
    pool, together = ThreadPoolExecutor(workers, thread_name_prefix=name), threading.Barrier(workers)

    def settle() -> None:
        torch.get_num_threads()  # what is set before a thread's first look is forgotten at that look
        torch.set_num_threads(threads_each)
        together.wait()

    wait([pool.submit(settle) for _ in range(workers)])
    torch.set_num_threads(before)
    return pool
