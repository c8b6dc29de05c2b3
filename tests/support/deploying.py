"""Deploys one application after another into one Ray, in whichever environment runs this, and tells what Serve says.

    stdin: a line of JSON {"args": {...}, "environ": {...}}  ->  stdout: a line {"NAME": ["STATUS", "MESSAGE"], ...}

`python -m serve_app.launcher` ends when a deployment fails; this goes on, to see whether the others serve.
"""

import json
import logging
import os
import sys
import threading
import time

import ray
from ray import serve

from serve_app.app import build
from serve_app.errors import ServiceError
from serve_app.settings import BuildArgs
from tests.support.deadline import DEADLINE_S

SETTLED = ("HEALTHY", "UNHEALTHY", "DEPLOY_FAILED")


def main(port: int) -> None:
    """Serve on `port` until stdin ends."""
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        for line in sys.stdin:
            print(json.dumps(_deploy(json.loads(line))), flush=True)
    finally:
        serve.shutdown()
        ray.shutdown()


def _deploy(wanted: dict) -> dict[str, tuple[str, str]]:
    os.environ.update(wanted["environ"])
    try:
        application = build(BuildArgs.model_validate(wanted["args"]))
    except ServiceError as error:
        return {"build": (type(error).__name__, error.message)}
    if "speech" in serve.status().applications:
        serve.delete("speech")  # else its old states could be taken for the new ones
    serve._run(application, name="speech", route_prefix="/", _blocking=False)
    deadline = time.monotonic() + DEADLINE_S
    while True:
        parts = serve.status().applications["speech"].deployments
        told = {name: (part.status.value, part.message) for name, part in parts.items()}
        if told and all(status in SETTLED for status, _ in told.values()):
            return told
        if time.monotonic() > deadline:
            raise TimeoutError(f"not settled within {DEADLINE_S} s: {told}")
        threading.Event().wait(0.2)


if __name__ == "__main__":
    main(int(sys.argv[1]))
