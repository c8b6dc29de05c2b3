"""From what a client asked for to a SpeechRequest in which everything is decided.

Model, voice version, seed and parameters are fixed here, so that nothing which happens later (a replaced voice, another
default) can change what a request means.
"""

import asyncio
import hashlib
import secrets
from dataclasses import asdict, replace
from typing import Any

from serve_app import logs
from serve_app.catalog import Catalog, Model
from serve_app.directives import named_voices, without_directives
from serve_app.domain import BUILTIN, SpeechRequest, VoiceRef
from serve_app.errors import InvalidText, PayloadTooLarge, VoiceNotFound
from serve_app.lexicon import Lexicon, Lexicons, joined
from serve_app.near import near_words
from serve_app.parameters import MAX_SEED, Defaults, Parameters
from serve_app.planning import has_speech
from serve_app.runtimes import Runtimes
from serve_app.settings import LimitSettings
from serve_app.spoken import entries_for, normalisers_of
from serve_app.text import FIELD, normalise
from serve_app.voices import VoiceLibrary

__all__ = ["Acceptance"]


class Acceptance:
    """Checks and completes requests for speech."""

    def __init__(
        self,
        catalog: Catalog,
        library: VoiceLibrary,
        limits: LimitSettings,
        runtimes: Runtimes,
        lexicons: Lexicons,
    ) -> None:
        self._catalog = catalog
        self._lexicons = lexicons
        self._library = library
        self._limits = limits
        self._runtimes = runtimes

    async def accept(
        self,
        *,
        text: str | None,
        text_field: str,
        model: str | None,
        voice: str | None,
        voice_field: str,
        parameters: Parameters,
        tenant: str,
        request_id: str,
        job_id: str | None = None,
        language: str | None = None,
        normalize: bool = True,
        lexicon: Lexicon = (),
    ) -> SpeechRequest:
        """Raises InvalidText, PayloadTooLarge, InvalidRequest, ModelNotFound or VoiceNotFound, naming the field.

        `text`: None where it comes later, in pieces; the request then has "", and whoever takes the pieces checks them.
        See SpeechRequest for `language`, `normalize` and `lexicon`; voices that the text switches to are fixed, too.
        A job is also told what its model runs on now; where the store does not say, that is a StorageError. Its seed,
        where none was sent, follows from its id, so that two requests with one idempotency key are one job.
        """
        selected, decided = await asyncio.to_thread(self.check, text, text_field, model, parameters)
        ref = await self._voice(tenant, voice, voice_field, selected)
        others = [
            (name, await self._voice(tenant, name, f"{text_field}: [voice:{name}]:", selected))
            for name in named_voices(text or "")
        ]
        version = None if job_id is None else await asyncio.to_thread(self.model_version, selected.name)
        accepted = SpeechRequest(
            text=text or "",
            model=selected.name,
            voice=ref,
            speed=decided.speed,
            seed=_drawn_seed(job_id) if parameters.seed is None else parameters.seed,
            request_id=request_id,
            tenant=tenant,
            job_id=job_id,
            sampling=decided.sampling,
            cross_fade_s=decided.cross_fade_s,
            model_version=version,
            language=language,
            languages=selected.languages,
            normalize=normalize,
            lexicon=lexicon,
            voices=dict(others),
        )
        accepted = await asyncio.to_thread(self._with_words, accepted, text_field, text is None)
        logs.event(
            "accepted",
            job_id=job_id,
            model=selected.name,
            voice=ref.name,
            voices=[name for name, _ in others] or None,
            seed=accepted.seed,
            chars=None if text is None else len(text),
            speed=decided.speed,
            cross_fade_s=decided.cross_fade_s,
            **(asdict(decided.sampling) if decided.sampling else {}),
        )
        return accepted

    def _with_words(self, request: SpeechRequest, text_field: str, text_comes_later: bool) -> SpeechRequest:
        """Decided, too, what is done to its words. A long text takes a moment, and the lexicon may be in the store."""
        kind: dict[str, Any] = {
            "language": request.language,
            "languages": request.languages,
            "normalize": request.normalize,
        }
        lexicon = joined(self._lexicons.get(request.tenant), request.lexicon)
        if text_comes_later:
            return replace(request, lexicon=lexicon)
        decided = replace(
            request,
            lexicon=entries_for(request.text, lexicon, **kind),
            normalisers=normalisers_of(request.text, **kind),
        )
        if not has_speech(decided):
            raise InvalidText(f"{text_field} {request.text[:40]!r} is markup and has nothing to speak: send words")
        return decided

    def model_version(self, model: str) -> str | None:
        """What speaks for the model now (`SpokenUnit.made_by`); None before its first start. Raises StorageError."""
        return self._runtimes.made_by(model)

    def check(
        self, text: str | None, text_field: str, model: str | None, parameters: Parameters
    ) -> tuple[Model, Defaults]:
        """All but the voice: the model, and what the speech is made with; a long text takes tens of milliseconds.
        Raises as `accept`."""
        if text is not None:
            self._check_text(text, text_field)
        selected = self._catalog.model(model)
        return selected, parameters.joined(selected.name, selected.defaults)

    def _check_text(self, text: str, text_field: str) -> None:
        if not text.strip():
            raise InvalidText(f"{text_field} is empty: send the text to speak")
        limit = self._limits.max_text_chars
        if len(text) > limit:
            raise PayloadTooLarge(
                f"{text_field} has {len(text)} characters, at most {limit} are taken: send it in parts"
            )
        if not any(map(str.isalnum, _spoken(text, text_field))):
            raise InvalidText(f"{text_field} {text[:40]!r} has nothing to speak: send at least one letter or digit")

    async def _voice(self, tenant: str, name: str | None, field: str, model: Model) -> VoiceRef:
        """A built-in voice of the model, else a stored one, else an alias: uploading `alloy` overrides the alias."""
        if name is None:
            return VoiceRef(model.default_voice, BUILTIN, tenant)
        if name in model.builtin_voices:
            return VoiceRef(name, BUILTIN, tenant)
        try:
            return await asyncio.to_thread(self._library.resolve, tenant, name)
        except VoiceNotFound as error:
            alias = self._catalog.voice_alias(name, model)
            if alias is None:
                built_in = ", ".join(model.builtin_voices)
                others = {*model.builtin_voices, *self._catalog.voice_aliases}
                near = await asyncio.to_thread(self._library.near, tenant, name, others)
                raise VoiceNotFound(
                    f"{field} {name!r} does not exist{near_words(near)}: upload it, list the voices with "
                    f"GET /v1/audio/voices, or use what model {model.name!r} has built in ({built_in})"
                ) from error
        return await self._voice(tenant, alias, field, model)


def _spoken(text: str, text_field: str) -> str:
    try:
        return without_directives(normalise(text))
    except InvalidText as error:  # it does not know what the field is called here
        raise InvalidText(f"{text_field}{error.message.removeprefix(FIELD)}") from error


def _drawn_seed(job_id: str | None) -> int:
    if job_id is None:
        return secrets.randbelow(MAX_SEED + 1)
    return int.from_bytes(hashlib.sha256(job_id.encode()).digest()) % (MAX_SEED + 1)
