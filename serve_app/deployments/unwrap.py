"""What another process raised, as it was raised there."""

from ray.exceptions import RayTaskError

from serve_app.errors import ServiceError

__all__ = ["unwrap"]


def unwrap(exc: BaseException) -> BaseException:
    """The exception inside Ray's RayTaskError, however often it was wrapped; any other exception as it is.

    An exception that is none of ours is a defect: it gets the remote traceback as a note, for the log.
    """
    cause = exc
    while isinstance(cause, RayTaskError) and cause.cause is not None:
        cause = cause.cause
    if cause is not exc and not isinstance(cause, ServiceError):
        cause.add_note(f"raised in another process:\n{exc}")
    return cause
