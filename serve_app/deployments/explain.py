"""Says in a few lines what Serve's message on a failed deployment means, and what to change."""

import re

__all__ = ["explain", "starts_left"]

OUR_ERROR = re.compile(r"^serve_app\.errors\.\w+: (?P<said>.+?)(?=^\S*Traceback|\Z)", re.MULTILINE | re.DOTALL)
RETRYING = re.compile(r"A replica failed to start with exception\. Retrying (?P<left>\d+) more time")
INSTALLER = re.compile(r"^\s*error: (?P<said>.+)", re.MULTILINE | re.DOTALL)
REMEDY = (
    "the packages of this model's environment (environment: ray) could not be installed on its node: correct what is "
    "named here (the wheel of flash_attn is FLASH_ATTN_WHEEL, a URL or file with #sha256=), or prepare an environment "
    "with `python -m env_setup install --environment DIR`"
)


def explain(message: str) -> str:
    """The cause without Ray's tracebacks; `message` itself where there is none to be found."""
    if "runtime_env" in message and (found := INSTALLER.search(message)):
        return f"{_one_line(found['said'])}: {REMEDY}"
    if ours := OUR_ERROR.findall(message):
        return _one_line(ours[-1])
    return message.strip()


def starts_left(message: str) -> int | None:
    """How often Serve will still try to start a replica of a deployment whose last start failed; None of any other."""
    found = RETRYING.search(message)
    return int(found["left"]) if found else None


def _one_line(text: str) -> str:
    return " ".join(text.split())
