"""The tenant's own pronunciation lexicon: read, replaced as a whole, deleted. What is in it is checked below HTTP."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from serve_app import logs
from serve_app.api.services import services_of, tenant_of
from serve_app.lexicon import MAX_TENANT_ENTRIES

__all__ = ["router"]

router = APIRouter(tags=["lexicon"])


class LexiconBody(BaseModel):
    """Words with the spellings that they are spoken by."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"entries": {"GIF": "jif"}}]})

    entries: dict[str, str] = Field(
        description=f"at most {MAX_TENANT_ENTRIES}; a word with a capital letter matches in this case only"
    )


@router.get("/v1/lexicon")
async def get(request: Request) -> LexiconBody:
    """What is stored; no entries where nothing is."""
    logs.event("received", dialect="native", endpoint="lexicon.get")
    lexicon = await asyncio.to_thread(services_of(request).lexicons.get, tenant_of(request))
    logs.event("answered_from_store", entries=len(lexicon))
    return LexiconBody(entries=dict(lexicon))


@router.put("/v1/lexicon")
async def put(request: Request, body: LexiconBody) -> LexiconBody:
    """In place of what was stored. Requests are spoken by it from now on, at other ingress replicas within 5 s."""
    logs.event("received", dialect="native", endpoint="lexicon.put", entries=len(body.entries))
    stored = await asyncio.to_thread(services_of(request).lexicons.put, tenant_of(request), body.entries)
    return LexiconBody(entries=dict(stored))


@router.delete("/v1/lexicon")
async def delete(request: Request) -> dict[str, Any]:
    """Nothing happens where none is stored."""
    logs.event("received", dialect="native", endpoint="lexicon.delete")
    await asyncio.to_thread(services_of(request).lexicons.delete, tenant_of(request))
    return {"object": "lexicon", "deleted": True}
