"""Reads files of a model hub over HTTPS, at fixed commits: what huggingface.co and its mirrors speak.

    HEAD {endpoint}/{owner/name}/resolve/{commit}/{path} -> X-Linked-Size, X-Linked-Etag (the sha256 of large files)
    GET  the same, with a Range, redirected to a CDN     -> bytes

The token is sent to the hub's own host only: requests drops it where it follows a redirect to another.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import quote, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from env_setup.pins import HubFile
from serve_app.errors import ModelLoadFailed
from serve_app.storage.streaming import BLOCK_BYTES
from serve_app.weights.transfer import CannotResume, Described, Interrupted

__all__ = ["Hub", "HubRemote"]

TIMEOUTS_S = (10.0, 60.0)  # to connect, and between two packets
MAX_REDIRECTS = 5
BUSY = (429, 500, 502, 503, 504)
SHA256 = re.compile(r"[0-9a-f]{64}")
ELSEWHERE = "put the file at models/{key} in the bucket, or set models[].source, .vocoder and .vocab to local files"


class Hub:
    """A hub at `endpoint`, with a token where given. Safe to use from one thread at a time."""

    def __init__(self, endpoint: str, token: str | None, *, backoff_s: float = 0.5) -> None:
        self.endpoint = endpoint
        self.has_token = token is not None
        self._session = requests.Session()
        retry = Retry(
            total=3, backoff_factor=backoff_s, status_forcelist=BUSY, allowed_methods={"GET", "HEAD"},
            raise_on_status=False, respect_retry_after_header=False,
        )  # fmt: skip
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))
        self._session.headers["Accept-Encoding"] = "identity"  # sizes and offsets are those of the file
        self._session.auth = _Token(token, endpoint)

    def file(self, file: HubFile) -> "HubRemote":
        return HubRemote(self, file)

    def head(self, url: str) -> requests.Response:
        """The answer to HEAD; redirects are not followed."""
        return self._session.head(url, timeout=TIMEOUTS_S, allow_redirects=False)

    def get(self, url: str, start: int) -> requests.Response:
        """The answer to GET from offset `start`, its body not read; redirects are followed."""
        headers = {"Range": f"bytes={start}-"} if start else None
        return self._session.get(url, headers=headers, timeout=TIMEOUTS_S, stream=True)


class HubRemote:
    """One file of the hub."""

    def __init__(self, hub: Hub, file: HubFile) -> None:
        self._hub, self._file = hub, file
        self._url = f"{hub.endpoint}/{file.repository}/resolve/{file.revision}/{quote(file.path)}"

    @property
    def label(self) -> str:
        return self._url

    def describe(self) -> Described:
        """Ask for size and sha256. Raises ModelLoadFailed with a message of its own for each refusal."""
        url = self._url
        for _ in range(MAX_REDIRECTS):
            answer = self._asked(self._hub.head, url)
            if answer.status_code >= 400:
                raise self._refusal(answer)
            size = answer.headers.get("X-Linked-Size", "")
            if not answer.is_redirect:
                size = size or answer.headers.get("Content-Length", "")
            if size.isdecimal():
                etag = answer.headers.get("X-Linked-Etag") or answer.headers.get("ETag", "")
                sha256 = etag.removeprefix("W/").strip('"')
                return Described(int(size), sha256 if SHA256.fullmatch(sha256) else None)
            if not answer.is_redirect:
                break
            url = urljoin(url, answer.headers["Location"])  # to the repository's new name, or a mirror's origin
        raise self._failed(f"did not tell the size of the file (HTTP {answer.status_code}), as a model hub does")

    def read(self, start: int) -> Iterator[bytes]:
        """The bytes from `start`. Raises ModelLoadFailed, Interrupted or CannotResume."""
        try:
            answer = self._hub.get(self._url, start)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise Interrupted(_reason(error)) from error
        except requests.RequestException as error:
            raise self._unreachable(error) from error
        with closing(answer):
            if answer.status_code in BUSY:
                raise Interrupted(f"HTTP {answer.status_code}")
            if start and (answer.status_code == 416 or not _is_from(answer, start)):
                raise CannotResume
            if answer.status_code >= 400:
                raise self._refusal(answer)
            try:
                yield from answer.iter_content(BLOCK_BYTES)
            except (requests.RequestException, HTTPError, OSError) as error:
                raise Interrupted(_reason(error)) from error

    def _asked(self, ask: Callable[[str], requests.Response], url: str) -> requests.Response:
        try:
            return ask(url)
        except requests.RequestException as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: requests.RequestException) -> ModelLoadFailed:
        if isinstance(error, ValueError):  # no scheme, no host, another scheme than http and https
            return ModelLoadFailed(
                f"HF_ENDPOINT is {self._hub.endpoint!r}, which is no URL of a model hub ({error}): correct it, or "
                "unset it for https://huggingface.co"
            )
        if isinstance(error, requests.exceptions.SSLError):
            return self._failed(
                f"has a TLS certificate that is not trusted here ({_reason(error)}): name its authority in "
                "REQUESTS_CA_BUNDLE, or correct HF_ENDPOINT"
            )
        return self._failed(f"does not answer ({_reason(error)}): check the network and HF_ENDPOINT")

    def _refusal(self, answer: requests.Response) -> ModelLoadFailed:
        """By the hub's own error code, where it gives one."""
        file, status = self._file, answer.status_code
        code = answer.headers.get("X-Error-Code", "")
        said = answer.headers.get("X-Error-Message", "") or answer.reason or ""
        answered = f"answered {status} {code or said}"
        if code == "GatedRepo":
            how = (
                "the account of HF_TOKEN" if self._hub.has_token else "your account, and set HF_TOKEN to a token of it"
            )
            return self._failed(
                f"{answered}: {file.repository} is gated; accept its licence on the repository's page with {how}"
            )
        if status == 401 and self._hub.has_token and "credentials" in said.lower():
            return self._failed(f"answered 401 {said}: HF_TOKEN is not a token of it; renew or unset it")
        if code == "RepoNotFound" or status == 401:
            how = "HF_TOKEN may not read it" if self._hub.has_token else "set HF_TOKEN if it is private"
            return self._failed(f"{answered}: there is no repository {file.repository}, or {how}")
        if code == "RevisionNotFound":
            return self._failed(f"{answered}: {file.repository} has no commit {file.revision}; correct the one after @")
        if code == "EntryNotFound":
            return self._failed(
                f"{answered}: {file.repository} has no file {file.path} at commit {file.revision}; correct the path"
            )
        if status == 403:
            return self._failed(f"{answered}: HF_TOKEN, or this machine's address, may not read {file.repository}")
        if status in BUSY:
            return self._failed(f"{answered}, {said}: it is overloaded or down; try again later")
        return self._failed(f"{answered} without the error code of a model hub: check HF_ENDPOINT and the proxy")

    def _failed(self, what: str) -> ModelLoadFailed:
        return ModelLoadFailed(
            f"the model hub {self._hub.endpoint}, asked for {self._url}, {what}; or "
            + ELSEWHERE.format(key=self._file.key)
        )


class _Token(requests.auth.AuthBase):
    """Also without a token: else requests would take a password for the hub from ~/.netrc."""

    def __init__(self, token: str | None, endpoint: str) -> None:
        self._token, self._host = token, urlsplit(endpoint.lower())[:2]

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token and urlsplit((request.url or "").lower())[:2] == self._host:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _is_from(answer: requests.Response, start: int) -> bool:
    """Whether the body begins at `start`: refusals are left to the caller."""
    if answer.status_code >= 400:
        return True
    return answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _reason(error: BaseException) -> str:
    """The innermost of the errors that requests and urllib3 wrap around each other: the others say no more."""
    while isinstance(nested := getattr(error, "reason", None) or next(iter(error.args), None), BaseException):
        error = nested
    return f"{type(error).__name__}: {error}"
