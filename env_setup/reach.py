"""Whether an address answers. The one module here that opens connections of its own."""

import socket
import urllib.error
import urllib.request
from typing import Any

__all__ = ["unanswered", "unfound"]

TIMEOUT_S = 5.0


class _Stay(urllib.request.HTTPRedirectHandler):
    """An answer that points elsewhere is an answer."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


def unanswered(url: str) -> str | None:
    """Why no HTTP answer, whatever its status, comes from `url`; None if one does."""
    status, problem = _head(url, urllib.request.build_opener(_Stay))
    return None if status else problem


def unfound(url: str) -> str | None:
    """Why the file at `url` cannot be fetched; None if a HEAD request finds it."""
    status, problem = _head(url, urllib.request.build_opener())
    if status and status >= 400 and status not in (403, 405, 501):  # signed URLs and old servers refuse HEAD
        return f"answers {status}"
    return None if status else f"cannot be reached ({problem})"


def _head(url: str, opener: urllib.request.OpenerDirector) -> tuple[int | None, str | None]:
    """(status, None) or (None, why there is none)."""
    try:
        with opener.open(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT_S) as answer:
            return answer.status, None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, TimeoutError):
            return None, f"no answer within {TIMEOUT_S:g} s"
        if isinstance(reason, socket.gaierror):
            return None, f"its name cannot be resolved: {reason.strerror}"
        return None, str(reason)
    except TimeoutError:
        return None, f"no answer within {TIMEOUT_S:g} s"
    except (OSError, ValueError) as error:
        return None, str(error)
    except Exception as error:  # http.client's errors for what is no HTTP at all
        return None, f"{type(error).__name__}: {error}"
