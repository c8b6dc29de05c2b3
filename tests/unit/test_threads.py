"""How replicas wait for the store beside all else that they do."""

import sys

from serve_app.deployments.threads import SWITCH_S, wait_in_threads


async def test_a_thread_holds_up_the_others_for_a_millisecond_at_most():
    """Python's own five would be paid at each step of each request to the store."""
    before = sys.getswitchinterval()
    try:
        wait_in_threads()
        assert sys.getswitchinterval() == SWITCH_S < before
    finally:
        sys.setswitchinterval(before)
