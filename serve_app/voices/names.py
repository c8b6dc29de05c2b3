"""What a voice may be called."""

import re

from serve_app.errors import InvalidVoiceName

__all__ = ["NAME_PATTERN", "from_file_name", "validate_name"]

NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
SHOWN_CHARS = 80  # of a wrong name, in a message: it may be as long as a request


def validate_name(name: str, *, field: str = "voice") -> str:
    """`name`, if it can be a voice's. Raises InvalidVoiceName, naming `field`."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise InvalidVoiceName(
            f"{field} {name[:SHOWN_CHARS]!r} is not a voice's name: use 1 to 64 letters, digits, _ and -, beginning "
            f"with a letter or a digit (pattern {NAME_PATTERN})"
        )
    return name


def from_file_name(name: str, *, field: str = "voice") -> str:
    """As `validate_name`, of a file name as the old worker took it: one `.wav` at the end is dropped."""
    return validate_name(name.removesuffix(".wav"), field=field)
