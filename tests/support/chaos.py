"""What the checker of chaos runs finds in the bucket of a good one."""

from tests.chaos.bucket import Stored

ENDED = Stored(
    runs=1,
    owners=1,
    given_back=0,
    hasty=0,
    outcomes=("completed",),
    pending=False,
    conditional=False,
    finished_at=12.0,
    sha256="aa",
)
"""A job that completed in its first run, on a store without conditions."""
