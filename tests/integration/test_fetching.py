"""URLs that strangers name, read by the real client: hostile ones, redirects, too much, too slow. Loopback only."""

from collections.abc import Iterator

import pytest

from serve_app.errors import InvalidUrl, PayloadTooLarge
from serve_app.fetching import UrlFetcher
from tests.support.http_servers import LoopbackServer, QuietHandler

FIELD = "input.voice_file_url"
OPEN = UrlFetcher(seconds=20, allowed_addresses=("127.0.0.1/32",))

HOSTILE = [
    "http://127.0.0.1/v.wav",
    "http://localhost/v.wav",
    "http://0.0.0.0/v.wav",
    "http://[::1]/v.wav",
    "http://[::ffff:127.0.0.1]/v.wav",
    "http://2130706433/v.wav",
    "http://0x7f.1/v.wav",
    "http://0177.0.0.1/v.wav",
    "http://10.0.0.1/v.wav",
    "http://172.16.0.1/v.wav",
    "http://192.168.1.1/v.wav",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://100.64.0.1/v.wav",
    "http://[fe80::1]/v.wav",
    "file:///etc/passwd",
    "ftp://example.com/v.wav",
    "gopher://example.com/_x",
    "http://user:password@example.com/v.wav",
    "http:///v.wav",
    "http://example.com:99999/v.wav",
    "javascript:alert(1)",
    "http://exa mple.com/v.wav",
    "http://example.com/\r\nHost: x",
    "",
    "http://" + "a" * 2000,
]


class Site(LoopbackServer):
    """Answers by path; `seen` are the paths that were asked for."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.seen: list[str] = []


class Handler(QuietHandler):
    server: Site

    def do_GET(self) -> None:  # noqa: N802  (a name that http.server looks for)
        self.server.seen.append(self.path)
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        elif self.path == "/loop":
            self.send_response(302)
            self.send_header("Location", "/loop")
            self.end_headers()
        elif self.path == "/missing":
            self.send_error(404)
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            while not self.server.over.is_set():
                self.wfile.write(b"x" * 65536)
        elif self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            while not self.server.over.wait(0.2):
                self.wfile.write(b"x")
        else:
            body = b"RIFF and so on"
            self.send_response(200)
            self.send_header("Content-Length", str(10**12 if self.path == "/huge" else len(body)))
            self.end_headers()
            self.wfile.write(body)


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as server:
        yield server


@pytest.mark.parametrize("url", HOSTILE)
def test_hostile_urls_are_refused(url: str) -> None:
    """InvalidUrl names the field, and only the beginning of a long URL."""
    with pytest.raises(InvalidUrl) as error:
        UrlFetcher(seconds=20).fetch(url, field=FIELD, max_bytes=100)
    assert error.value.message.startswith(f"{FIELD} ")
    assert "is refused" in error.value.message or "is not a URL that is read" in error.value.message
    assert error.value.status == 400
    assert len(error.value.message) < 400


def test_what_is_allowed_is_read(site: Site) -> None:
    """Also behind a redirect; a proxy in the environment is not asked."""
    for path in ("/v.wav", "/to//v.wav"):
        assert OPEN.fetch(site.url + path, field=FIELD, max_bytes=100) == b"RIFF and so on"


@pytest.mark.parametrize("to", ["http://[::1]/v.wav", "http://169.254.169.254/", "file:///etc/passwd"])
def test_a_redirect_is_checked_as_the_url_was(site: Site, to: str) -> None:
    """To another address of ours it is not followed."""
    with pytest.raises(InvalidUrl, match=r"is refused|InvalidSchema|InvalidURL"):
        OPEN.fetch(f"{site.url}/to/{to}", field=FIELD, max_bytes=100)


def test_redirects_in_a_circle_end(site: Site) -> None:
    """After five."""
    with pytest.raises(InvalidUrl, match="TooManyRedirects"):
        OPEN.fetch(f"{site.url}/loop", field=FIELD, max_bytes=100)
    assert len(site.seen) == 6


def test_an_error_is_told(site: Site) -> None:
    """With its status; a port where nobody answers with the kind of error."""
    with pytest.raises(InvalidUrl, match="answers 404"):
        OPEN.fetch(f"{site.url}/missing", field=FIELD, max_bytes=100)
    with pytest.raises(InvalidUrl, match="ConnectionError"):
        OPEN.fetch("http://127.0.0.1:1/", field=FIELD, max_bytes=100)


@pytest.mark.parametrize("path", ["/huge", "/endless", "/v.wav"])
def test_too_much_is_not_read(site: Site, path: str) -> None:
    """Neither what says so, nor what does not."""
    with pytest.raises(PayloadTooLarge, match="is over 10 bytes"):
        OPEN.fetch(site.url + path, field=FIELD, max_bytes=10)


def test_a_slow_answer_ends(site: Site) -> None:
    """However many bytes drip in the time that there is for all of it."""
    with pytest.raises(InvalidUrl, match="took more than 2 s"):
        UrlFetcher(2, OPEN.allowed_addresses).fetch(f"{site.url}/drip", field=FIELD, max_bytes=100)
