"""What may stand in a URL's query: a parameter that nobody reads is refused, since it would be dropped in silence."""

from fastapi import Request

from serve_app.errors import InvalidRequest

__all__ = ["known_query"]


def known_query(request: Request) -> None:
    """A dependency of routes. Raises InvalidRequest that names the parameter, and those that there are."""
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    if unknown := set(request.query_params) - {*known}:
        remedy = f"use some of {', '.join(known)}" if known else "leave it out"
        raise InvalidRequest(f"{min(unknown)[:60]!r} is no parameter of {request.url.path[:100]}: {remedy}")
