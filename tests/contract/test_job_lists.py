"""Pages of jobs are whole on every store: what the names of entries rely on is that each orders keys alike."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from serve_app.job_pages import WINDOW, JobPages
from serve_app.jobs import JobLists
from tests.support.jobs import Clock, job_outcome, job_request, job_store


@pytest.mark.parametrize("limit", [1, 7, WINDOW])
def test_pages_of_ended_jobs_are_without_gaps_and_repeats(store, limit):
    """In all lists, the newest first, where one job has two ends too."""
    jobs, clock = job_store(store), Clock()
    requests = [job_request(number, accepted_at=100.0 + number) for number in range(WINDOW + 5)]
    for request in requests:
        jobs.submit(request)
        jobs.settle(request, jobs.finish(job_outcome("completed", job_id=request.job_id)))
    JobLists(store).put(requests[-1], "cancelled")
    with ThreadPoolExecutor(4) as pool:
        pages = JobPages(store, jobs, pool, clock, clock.wall)
        for state in (None, "completed"):
            assert [*_ids(pages, state, limit)] == [request.job_id for request in reversed(requests)]


def _ids(pages: JobPages, state, limit: int):
    after: str | None = ""
    while after is not None:
        page = pages.page("default", state, after=after, limit=limit)
        yield from (each.job_id for each in page.items)
        after = page.next_after
