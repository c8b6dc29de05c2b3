"""What may stand in a URL's query and in a form: what nobody reads is refused, since it would be dropped in silence.

A JSON body's model refuses its own; these are dependencies of routes, which know their parameters.
"""

from collections import Counter

from fastapi import Request

from serve_app.errors import InvalidRequest

__all__ = ["known_form", "known_query"]

SHOWN_CHARS = 60


def known_query(request: Request) -> None:
    """Raises InvalidRequest that names the parameter, and those that there are."""
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    if unknown := set(request.query_params) - {*known}:
        remedy = f"use some of {', '.join(known)}" if known else "leave it out"
        raise InvalidRequest(f"{min(unknown)[:SHOWN_CHARS]!r} is no parameter of {request.url.path[:100]}: {remedy}")


async def known_form(request: Request) -> None:
    """Raises InvalidRequest for a field that the form does not have, or that comes more than once."""
    known = [parameter.alias for parameter in request.scope["route"].dependant.body_params]
    sent = Counter(name for name, _ in (await request.form()).multi_items())
    if unknown := set(sent) - {*known}:
        raise InvalidRequest(f"{min(unknown)[:SHOWN_CHARS]!r} is no field of this form: use some of {', '.join(known)}")
    if twice := [name for name, times in sent.items() if times > 1]:
        raise InvalidRequest(f"{twice[0]} comes {sent[twice[0]]} times: send it once")
