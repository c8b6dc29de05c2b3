"""How voices are told, and the fields that come with them, alike in all dialects."""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from threading import BoundedSemaphore
from typing import Any, TypeVar

from fastapi import Request, UploadFile

from serve_app import keys, logs
from serve_app.api.services import services_of, tenant_of
from serve_app.errors import Conflict, InvalidRequest, Overloaded, PayloadTooLarge, VoiceNotFound
from serve_app.preparation import Fields
from serve_app.voices import Upload, VoiceDetails

__all__ = ["imported_voice", "parsed_labels", "parsed_language", "recording_of", "shown_url", "slowly", "voice_answer"]

T = TypeVar("T")

LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
TWO_LETTERS = {"eng": "en"}
MAX_LABELS, MAX_LABEL_CHARS = 20, 200
AT_ONCE, WAITING = 4, 16
_threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="voices")
_room = BoundedSemaphore(AT_ONCE + WAITING)


async def slowly(function: Callable[..., T], *args: Any, **named: Any) -> T:
    """Preparing and fetching, which take seconds: in threads of their own, so that nothing else waits for them.

    Raises Overloaded where too many wait already.
    """
    if not _room.acquire(blocking=False):
        raise Overloaded("too many voices are being made ready here at the moment: send it again in a few seconds")
    running = _threads.submit(copy_context().run, partial(function, *args, **named))  # with the fields of the log
    running.add_done_callback(lambda _: _room.release())
    return await asyncio.wrap_future(running)


def voice_answer(request: Request, voice: VoiceDetails) -> dict[str, Any]:
    """A stored voice: what it is, and for one that is prepared what was done to it and where to hear it."""
    info, record = voice.info, voice.record
    answer: dict[str, Any] = {
        "id": info.name,
        "name": info.name,
        "object": "audio.voice",
        "builtin": False,
        "size_bytes": info.size_bytes,
        "last_modified": info.last_modified.isoformat(),
        "has_text": bool(record.text) if record else info.text_file is not None,
        "prepared": record is not None,
    }
    if record is None:
        return answer
    key = keys.prepared_audio(tenant_of(request), info.name, record.version)
    report = record.report
    return answer | {
        "version": record.version,
        "created": record.created,
        "language": record.language,
        "source": record.source,
        "consent": record.consent,
        "labels": dict(record.labels),
        "text": record.text,
        "transcript": report["transcript"],
        "text_checked": report["checked"],
        "duration_s": round(report["kept"][1] - report["kept"][0], 3),
        "source_s": round(report["source_s"], 3),
        "kept_s": [round(at, 3) for at in report["kept"]],
        "grade": report["grade"],
        "quality": {name: round(value, 4) for name, value in report["quality"].items()},
        "warnings": list(report["warnings"]),
        "preview_url": services_of(request).url(request, key, f"{info.name}.wav"),
    }


async def imported_voice(request: Request, url: str, field: str) -> str:
    """The name of the voice that the recording behind `url` is, which is prepared when it first comes.

    The name follows from the bytes: another recording behind the same URL is another voice.
    """
    services = services_of(request)
    limit = services.limits.voice_bytes
    audio = await slowly(services.fetcher.fetch, url, field=field, max_bytes=limit)
    name = f"url-{hashlib.sha256(audio).hexdigest()[:32]}"
    try:
        await asyncio.to_thread(services.library.resolve, tenant_of(request), name)
    except VoiceNotFound:
        upload = Upload(audio, source=shown_url(url), names=Fields(field, "its text"))
        with suppress(Conflict):  # another request with the same recording was first: the voice is there
            await slowly(services.library.create, tenant_of(request), name, upload)
        logs.event("stored", voice=name, size_bytes=len(audio))
    return name


async def recording_of(request: Request, file: UploadFile, field: str) -> bytes:
    """What was uploaded. Raises PayloadTooLarge, naming `field`."""
    limit = services_of(request).limits.voice_bytes
    data = await file.read(limit + 1)
    if len(data) > limit:
        raise PayloadTooLarge(f"{field} is over {limit} bytes: send a shorter file, 5 to 12 s is best")
    return data


def shown_url(url: str | None) -> str:
    """Without the query, which may hold a signature."""
    return url.partition("?")[0] if url else ""


def parsed_language(value: str, field: str) -> str | None:
    """A language tag in lower case; None for "". Raises InvalidRequest."""
    if not value.strip():
        return None
    if not LANGUAGE.fullmatch(value.strip()):
        raise InvalidRequest(f"{field} is {value[:40]!r}: send a language tag such as en, de or pt-BR")
    language, _, region = value.strip().lower().partition("-")
    return "-".join(filter(None, (TWO_LETTERS.get(language, language), region)))


def parsed_labels(value: str, field: str) -> dict[str, str]:
    """A JSON object of texts; {} for "". Raises InvalidRequest."""
    if not value.strip():
        return {}
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{field} is {value[:40]!r}, not JSON ({error}): send an object of texts") from error
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise InvalidRequest(f'{field} is {value[:40]!r}: send an object of texts such as {{"accent": "Scottish"}}')
    if any(not text.isprintable() for pair in found.items() for text in pair):
        raise InvalidRequest(f"{field} has controls, or half a character: send printable texts")
    if len(found) > MAX_LABELS or any(len(text) > MAX_LABEL_CHARS for pair in found.items() for text in pair):
        raise InvalidRequest(f"{field}: send at most {MAX_LABELS} labels of at most {MAX_LABEL_CHARS} characters each")
    return found
