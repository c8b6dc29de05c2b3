"""A process that keeps what it frees does not fault it in again."""

import subprocess
import sys

SCRIPT = """
import resource, threading
import numpy as np
from serve_app.engine.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(12_000_000, np.float32)  # 48 MB: 11,719 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept, counts = keep_freed_memory(), []
thread = threading.Thread(target=lambda: counts.extend([faults(), faults()]))
thread.start()
thread.join()
print(kept, counts[1])
"""


def test_freed_memory_is_used_again() -> None:
    """Also in a thread that is not the first: where nothing was kept, each of 20 arrays would fault in its 48 MB."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    assert kept == "True"
    assert int(faults) < 1000
