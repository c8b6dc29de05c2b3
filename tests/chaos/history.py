"""What a run saw, in the order in which it was written: JSON lines, and in memory for the checker.

    acked   id text seed               the service answered 200 with an id
    cancel  id accepted                a cancel was sent; `accepted` None where its answer is not known
    seen    id sent at state           `state` was read, by /status or /cancel: asked at `sent`, answered at `at`
    unknown id sent at                 a 404 for an acknowledged id
    audio   id sha256                  what lies behind `output.audio_url`
    fault   index kind what victim     at `at`; `healed` is when what was killed had been started again
Times are Unix seconds of this machine.
"""

import json
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["Event", "History"]

Event = dict[str, Any]


class History:
    """Written from many threads."""

    def __init__(self, path: Path) -> None:
        self.events: list[Event] = []
        self._file = path.open("w")
        self._lock = threading.Lock()

    def add(self, event: str, **fields: Any) -> Event:
        """Record it, with `at` = now unless given."""
        record: Event = {"event": event, "at": time.time(), **fields}
        with self._lock:
            self.events.append(record)
            self._file.write(json.dumps(record) + "\n")
        return record

    def close(self) -> None:
        self._file.close()
