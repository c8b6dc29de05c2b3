"""ElevenLabs' voices: listed, added, told and deleted. An id is the name that the voice has in every dialect."""

import asyncio
import re
from collections import Counter
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from pydantic import Field

from serve_app import logs
from serve_app.api import examples
from serve_app.api.elevenlabs_forms import Forbidding
from serve_app.api.services import Services, services_of, tenant_of
from serve_app.api.voices import LANGUAGE, parsed_labels, parsed_language, recording_of, slowly, voice_answer
from serve_app.errors import Conflict, InvalidRequest, VoiceNotFound
from serve_app.preparation import Fields
from serve_app.voices import Upload, VoiceInfo, validate_name

__all__ = ["router"]

router = APIRouter(tags=["ElevenLabs"])

AT_ONCE = 1000
"""Voices that one listing of the store gives."""
MAX_DESCRIPTION_CHARS = 1000
FORM_FIELDS = ("name", "files", "description", "labels", "remove_background_noise", "ref_text")
VoiceForm = dict[str, Any]


class ListQuery(Forbidding):
    """Of the first version, which has no pages."""

    show_legacy: bool | None = None


class SearchQuery(Forbidding):
    """Of the second version. Filters by what a list does not know of a voice (its labels, collections) are refused."""

    next_page_token: str = ""
    page_size: int = Field(10, ge=1, le=100)
    search: str = Field("", description="part of the name, in any case")
    sort: Literal["name", "created_at_unix"] | None = None
    sort_direction: Literal["asc", "desc"] = "asc"
    voice_type: (
        Literal["personal", "community", "default", "workspace", "non-default", "non-community", "saved"] | None
    ) = None
    category: Literal["premade", "cloned", "generated", "professional"] | None = None
    voice_ids: list[str] | None = Field(None, max_length=100)
    include_total_count: bool | None = None
    include_custom_rates: bool | None = None
    include_live_moderated: bool | None = None

    def takes(self, voice: VoiceForm) -> bool:
        of_type = {None: True, "default": voice["category"] == "premade", "community": False}
        return (
            self.search.casefold() in voice["name"].casefold()
            and of_type.get(self.voice_type, voice["category"] == "cloned")
            and self.category in (None, voice["category"])
            and (self.voice_ids is None or voice["voice_id"] in self.voice_ids)
        )

    def place(self, voice: VoiceForm) -> str:
        """What the list is in the order of, and the token of the page that follows."""
        if self.sort == "name":
            return f"{voice['name'].casefold()} {voice['name']}"
        first = voice.get("created_at_unix", 0) if self.sort else int(voice["category"] == "cloned")
        return f"{first:012d} {voice['name']}"

    def is_behind(self, voice: VoiceForm) -> bool:
        """Whether it comes after the page whose token this is."""
        place, token = self.place(voice), self.next_page_token
        return not token or (place < token if self.sort_direction == "desc" else place > token)


@router.get("/v1/voices")
async def voices(request: Request, query: Annotated[ListQuery, Query()]) -> dict[str, Any]:
    """All voices, built-in ones first."""
    logs.event("received", dialect="elevenlabs", endpoint="voices.list")
    return {"voices": await asyncio.to_thread(_all_voices, services_of(request), tenant_of(request))}


@router.get("/v2/voices")
async def search_voices(request: Request, query: Annotated[SearchQuery, Query()]) -> dict[str, Any]:
    """Voices that the query takes, page by page."""
    logs.event("received", dialect="elevenlabs", endpoint="voices.search")
    known = await asyncio.to_thread(_all_voices, services_of(request), tenant_of(request))
    found = sorted(filter(query.takes, known), key=query.place, reverse=query.sort_direction == "desc")
    rest = [*filter(query.is_behind, found)]
    page, has_more = rest[: query.page_size], len(rest) > query.page_size
    token = query.place(page[-1]) if has_more else None
    return {"voices": page, "has_more": has_more, "total_count": len(found), "next_page_token": token}


@router.post("/v1/voices/add", openapi_extra=examples.ELEVENLABS_VOICE)
async def add_voice(
    request: Request,
    name: Annotated[str, Form(description="spaces become hyphens in the id; a name that is taken is refused")],
    files: Annotated[list[UploadFile], File(description="one recording: wav, mp3, flac, ogg, m4a or webm")],
    description: Annotated[str, Form()] = "",
    labels: Annotated[str, Form(description='JSON object of texts; `language` ("en") is the recording\'s')] = "",
    remove_background_noise: Annotated[bool, Form(description="not served: false")] = False,
    ref_text: Annotated[str, Form(description="ours: what is said in the recording; transcribed without")] = "",
) -> dict[str, Any]:
    """Clone a voice: it is cleaned, compared with its text, cut to 12 s with it, and graded."""
    logs.event("received", dialect="elevenlabs", endpoint="voices.add")
    services, tenant = services_of(request), tenant_of(request)
    voice_id = validate_name("-".join(name.split()), field="name")
    sent = Counter(name for name, _ in (await request.form()).multi_items() if name != "files")
    if twice := [name for name, times in sent.items() if times > 1]:
        raise InvalidRequest(f"{twice[0][:60]} comes {sent[twice[0]]} times: send it once")
    if unknown := set(sent) - {*FORM_FIELDS}:
        raise InvalidRequest(f"{min(unknown)[:60]!r} is no field of a voice: use some of {', '.join(FORM_FIELDS)}")
    if remove_background_noise:
        raise InvalidRequest("remove_background_noise is true, and noise is not removed here: send a clean recording")
    if len(files) > 1:
        raise InvalidRequest(f"files has {len(files)} recordings, and a voice has one here: send one of 5 to 12 s")
    known = _labels(labels, description)
    upload = Upload(
        await recording_of(request, files[0], "files"),
        ref_text,
        language=_language(known.get("language", "")),
        labels=known,
        names=Fields("files", "ref_text"),
    )
    with suppress(VoiceNotFound):
        await asyncio.to_thread(services.library.resolve, tenant, voice_id)
        raise Conflict(f"name {name[:80]!r} is taken by voice {voice_id!r}: delete it first, or send another name")
    voice = await slowly(services.library.create, tenant, voice_id, upload)
    logs.event("stored", voice=voice.info.name, size_bytes=voice.info.size_bytes)
    return {"voice_id": voice.info.name, "requires_verification": False}


@router.get("/v1/voices/{voice_id}")
async def get_voice(request: Request, voice_id: str, with_settings: bool | None = None) -> VoiceForm:
    """A voice with its labels, its description and a URL to hear it."""
    logs.event("received", dialect="elevenlabs", endpoint="voices.get")
    services = services_of(request)
    if built_in := [voice for voice in _built_in(services) if voice["voice_id"] == voice_id]:
        return built_in[0]
    details = await asyncio.to_thread(services.library.get, tenant_of(request), voice_id)
    told = voice_answer(request, details)
    labels = dict(told.get("labels", {}))
    if told.get("language"):
        labels.setdefault("language", told["language"])
    return _stored(details.info) | {
        "description": labels.pop("description", None),
        "labels": labels,
        "preview_url": told.get("preview_url"),
    }


@router.delete("/v1/voices/{voice_id}")
async def delete_voice(request: Request, voice_id: str) -> dict[str, str]:
    """Delete a stored voice."""
    logs.event("received", dialect="elevenlabs", endpoint="voices.delete")
    await asyncio.to_thread(services_of(request).library.delete, tenant_of(request), voice_id)
    return {"status": "ok"}


def _all_voices(services: Services, tenant: str) -> list[VoiceForm]:
    listed, after = _built_in(services), ""
    while True:
        page = services.library.list(tenant, after=after, limit=AT_ONCE)
        listed += map(_stored, page.items)
        if page.next_after is None:
            logs.event("answered_from_store", voices=len(listed))
            return listed
        after = page.next_after


def _built_in(services: Services) -> list[VoiceForm]:
    return [
        {"voice_id": name, "name": name, "category": "premade", "labels": {}, "is_owner": False}
        for model in services.catalog.models
        for name in model.builtin_voices
    ]


def _stored(info: VoiceInfo) -> VoiceForm:
    """What is known of it without reading it. Its labels are not, and an empty object is what clients can read."""
    created = int(info.last_modified.timestamp())
    return {
        "voice_id": info.name,
        "name": info.name,
        "category": "cloned",
        "labels": {},
        "is_owner": True,
        "created_at_unix": created,
    }


def _labels(labels: str, description: str) -> dict[str, str]:
    """Both together, which is how a voice keeps them."""
    known = parsed_labels("" if labels == "null" else labels, "labels")  # its SDK sends null for none
    if not description:
        return known
    if len(description) > MAX_DESCRIPTION_CHARS:
        raise InvalidRequest(
            f"description has {len(description)} characters: send at most {MAX_DESCRIPTION_CHARS}, or leave it out"
        )
    if "description" in known:
        raise InvalidRequest("labels.description and description are both there: send one of them")
    return known | {"description": description}


def _language(label: str) -> str | None:
    """What people write there may be "English": then it is only a label."""
    return parsed_language(label, "labels.language") if re.fullmatch(LANGUAGE, label) else None
