"""One Ray node in the foreground, on loopback: the head of a cluster on a port, or one more at its address.

    python -m tests.chaos.node head PORT CPUS FOLDER
    python -m tests.chaos.node more PORT CPUS FOLDER

`ray start` refuses a second node while Ray is told to keep to loopback; this makes it as ray.cluster_utils does.
"""

import signal
import sys

from ray._private.node import Node
from ray._private.parameter import RayParams

__all__ = ["STARTED", "main"]

STARTED = "this node has started"
OBJECT_STORE_BYTES = 150_000_000


def main(kind: str, port: int, cpus: int, folder: str) -> None:
    """Start it, say so, and hold it until it is killed."""
    head = kind == "head"
    where = {"gcs_server_port": port, "temp_dir": folder} if head else {"gcs_address": f"127.0.0.1:{port}"}
    params = RayParams(
        node_ip_address="127.0.0.1",
        num_cpus=cpus,
        num_gpus=0,
        object_store_memory=OBJECT_STORE_BYTES,
        min_worker_port=0,
        max_worker_port=0,
        node_manager_port=0,
        include_dashboard=False,
        include_log_monitor=False,
        **where,
    )
    if not head:
        params.dashboard_agent_listen_port = None  # a random one: the head's own may be on this machine
    node = Node(params, head=head, shutdown_at_exit=True, spawn_reaper=True)
    print(f"{STARTED}: {node.gcs_address}", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
