"""A Jobs replica that Serve stops lets its jobs go, while a caller waits for one of them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from bench.simulated import serving, text_of_units
from bench.stores import new_store
from serve_app.jobs import JobRef, JobStore
from tests.support.running import until

UNITS = 240
"""A hundred seconds at the simulated model's rate."""
PATIENCE_S = 20.0


def test_a_job_that_somebody_waits_for_is_let_go_with_what_it_has_spoken(tmp_path: Path):
    """An open `/runsync` does not use up the time in which a replica lets its jobs go: no run is lost or failed."""
    with new_store("directory", tmp_path) as kept, ThreadPoolExecutor(1) as pool:
        jobs = JobStore(kept.store)
        patience = {"graceful_shutdown_timeout_s": PATIENCE_S}
        with serving(tmp_path, kept.variables, jobs_options=patience) as service:
            body = {"input": {"text": text_of_units(UNITS)}}
            url = f"{service.url}/runsync?wait=300000"
            answer = pool.submit(httpx.post, url, json=body, timeout=300)
            (ref,) = until(lambda: _jobs(kept.store) or (answer.done() and [answer.result().text]), "job is accepted")
            until(lambda: jobs.standing(ref).units_done > 0, "units are kept")
            assert not answer.done()
        found = jobs.standing(ref)
        assert (found.reason, found.run, found.lost, found.failed) == ("released", 1, 0, 0)
        assert found.units_done > 0
        answer.exception()  # the service is gone, or told where the job stands


def _jobs(store) -> list[JobRef]:
    names = {info.key.split("/")[2] for info in store.list("jobs/").items}
    return [JobRef(tenant="default", job_id=name) for name in names]
