"""The Info header of an mp3: how many samples of its decoded audio are the encoder's padding.

Source of the layout: "Mp3 Info Tag rev 1" by the makers of LAME, gabriel.mp3-tech.org/mp3infotag.html.
"""

__all__ = ["frame_samples", "more_padding", "silence_needed"]

DELAY = 1105
"""Samples that LAME (576) and every decoder (529) put before the first."""
LEAST_PADDING = 48
"""With less behind the last sample FFmpeg's LAME ends a frame too early, and does not say what is padding."""

INFO_BYTES = 120
"""From `Info` to where LAME's own part begins: flags, frames, bytes, table of contents, quality."""
PADDING_AT = INFO_BYTES + 21
CRC_AT = INFO_BYTES + 34
CHECKED_BYTES = 190
"""Of the frame, its checksum taken for 0: whatever the size of its side information, as FFmpeg counts them."""


def frame_samples(rate_hz: int) -> int:
    """MPEG-1 has 1152 samples a frame, MPEG-2 and 2.5, which are below 32 kHz, have 576."""
    return 1152 if rate_hz >= 32_000 else 576


def silence_needed(samples: int, rate_hz: int) -> int:
    """Samples of silence to encode behind so many: 0, or LEAST_PADDING where the last frame would be too full."""
    return LEAST_PADDING if -(samples + DELAY) % frame_samples(rate_hz) < LEAST_PADDING else 0


def more_padding(file: bytes, samples: int) -> bytes:
    """`file` with an Info header that calls `samples` more of its end padding. Raises ValueError where it has none."""
    at = file.find(b"Info", 0, 512)
    if at < 0:
        raise ValueError("this mp3 has no Info header")
    changed = bytearray(file)
    field = slice(at + PADDING_AT, at + PADDING_AT + 3)  # 12 bits of delay, 12 of padding
    changed[field] = (int.from_bytes(changed[field], "big") + samples).to_bytes(3, "big")
    frame = file.rfind(b"\xff", 0, at)  # its header; what is between is empty side information
    check = slice(at + CRC_AT, at + CRC_AT + 2)
    changed[check] = bytes(2)
    changed[check] = _crc16(changed[frame : frame + CHECKED_BYTES]).to_bytes(2, "big")
    return bytes(changed)


def _crc16(data: bytearray) -> int:
    """CRC-16/ARC."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc
