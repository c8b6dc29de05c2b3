"""A store that is watched and refuses, and recordings that are tones."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from serve_app.audio import encode
from serve_app.domain import Pcm, VoiceRef
from serve_app.errors import StorageDenied
from serve_app.storage import MemoryStore, ObjectInfo, StoredObject
from serve_app.voices import VoiceLibrary


class WatchedStore(MemoryStore):
    """Notes each call; runs `after_write` when something was written or deleted, as another process would."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []
        self.after_write: Callable[[], None] = lambda: None
        self.denied = ""
        self.unwritable = ""

    def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        self.calls.append(("put", key))
        if key == self.unwritable:
            raise StorageDenied(f'refused to write "{key}"')
        info = super().put(key, body, content_type=content_type)
        self.after_write()
        return info

    def delete(self, key: str) -> None:
        self.calls.append(("delete", key))
        super().delete(key)
        self.after_write()

    def head(self, key: str) -> ObjectInfo:
        return self._read("head", key).info

    def get(self, key: str) -> StoredObject:
        return self._read("get", key)

    def put_by_others(self, key: str, body: bytes) -> ObjectInfo:
        """As the old worker or a person does: nobody records a sha256."""
        info = replace(MemoryStore.put(self, key, body, content_type=""), sha256=None)
        self._objects[key] = StoredObject(info, body)
        return info

    def _read(self, verb: str, key: str) -> StoredObject:
        self.calls.append((verb, key))
        if self.denied and key.endswith(self.denied):
            raise StorageDenied(f'refused to read "{key}"')
        return super().get(key)


def tone(hz: float = 220, seconds: float = 1.0) -> Pcm:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(24_000 * seconds)) / 24_000)).astype(np.float32)


def wav(hz: float = 220, seconds: float = 1.0) -> bytes:
    return encode(tone(hz, seconds), "wav")


def say(library: VoiceLibrary, ref: VoiceRef) -> tuple[int, str]:
    """Seconds of audio and the text of this version."""
    voice = library.load(ref)
    return len(voice.audio) // 24_000, voice.text
