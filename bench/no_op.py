"""A deployment that does nothing, at /no-op: what a request costs Serve itself, with a body or without."""

from ray import serve
from ray.serve import Application
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["NO_OP", "NoOp", "build"]

NO_OP = "/no-op"
"""Its route."""


class NoOp:
    """Reads the body, if there is one, and answers."""

    async def __call__(self, request: Request) -> Response:
        await request.body()
        return Response(b"{}", media_type="application/json")


def build(args: dict[str, str]) -> Application:
    """Takes no arguments; Serve gives some to every builder."""
    deployed = serve.deployment(NoOp, ray_actor_options={"num_cpus": 0}, max_ongoing_requests=200)
    return deployed.bind()
