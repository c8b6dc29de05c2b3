"""Who gets the CPU first where it is scarce: who answers requests, before who works for minutes."""

import os

__all__ = ["work_behind_the_ingress"]

NICENESS = 10
"""Added to Ray's own (`RAY_worker_niceness`); 10 is about a tenth of the share of one that is not nice."""


def work_behind_the_ingress() -> None:
    """Let the ingress and Serve's proxy go first on this node: threads that this one starts from now on inherit it. On
    Linux it is of a thread; what Ray has begun already stays as it is."""
    os.nice(NICENESS)
