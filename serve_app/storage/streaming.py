"""What the stores share in streaming objects."""

from collections.abc import Iterator
from typing import BinaryIO

from serve_app.errors import Conflict, InvalidRequest

__all__ = ["BLOCK_BYTES", "blocks", "check_etag", "check_start"]

BLOCK_BYTES = 128 * 1024
"""What a connection that breaks off loses at most."""


def blocks(file: BinaryIO) -> Iterator[bytes]:
    """The rest of `file`, a block at a time."""
    while block := file.read(BLOCK_BYTES):
        yield block


def check_etag(key: str, found: str, wanted: str | None) -> None:
    """Raise Conflict where the object is not the one that was described."""
    if wanted not in (None, found):
        raise Conflict(f'object "{key}" has changed since it was described (etag {found}, then {wanted}): begin anew')


def check_start(key: str, start: int, size_bytes: int) -> None:
    """Raise InvalidRequest where no byte is at `start`; an empty object can be read from 0, as S3 has it."""
    if start < 0 or (start > 0 and start >= size_bytes):
        raise InvalidRequest(f'object "{key}" has {size_bytes} bytes, none at offset {start}: begin before its end')
