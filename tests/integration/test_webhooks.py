"""Webhooks posted by the real client to a real receiver on loopback, and to places that are not for them."""

import base64
import hashlib
import hmac
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from serve_app.errors import WebhookFailed
from serve_app.webhooks import WebhookSender
from tests.support.http_servers import LoopbackServer, QuietHandler

SECRET = bytes(range(32))
LOOPBACK = ("127.0.0.0/8",)
OPEN = WebhookSender(SECRET, seconds=20, allowed_addresses=LOOPBACK)
CLOSED = WebhookSender(SECRET, seconds=20)
BODY = '{"id": "job-1", "status": "COMPLETED", "text": "größer"}\r\n'.encode()

OURS = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://LocalHost:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://0.0.0.0:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://127.1:{port}/",
    "http://10.0.0.1:{port}/",
    "http://192.168.1.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
]


class Receiver(LoopbackServer):
    """Answers by path; `seen` are the messages, `connections` counts also those that sent none."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0

    def get_request(self) -> Any:
        taken = super().get_request()
        self.connections += 1
        return taken

    def handle_error(self, *_: Any) -> None:
        pass  # a client that breaks off is what some tests are about


class Handler(QuietHandler):
    server: Receiver

    def do_POST(self) -> None:  # noqa: N802  (a name that http.server looks for)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        match self.path.partition("?")[0].split("/"):
            case ["", "silent"]:
                self.server.over.wait()
            case ["", "dripping"]:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                while not self.server.over.wait(0.2):
                    self.wfile.write(b"x-more: to come\r\n")
            case ["", status, "endless"]:
                self._begin(int(status))
                while not self.server.over.is_set():
                    self.wfile.write(b"x" * 65536)
            case ["", status]:
                self._begin(int(status))

    def _begin(self, status: int) -> None:
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/200")
        self.end_headers()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


def send(sender: WebhookSender, url: str) -> None:
    sender.send(url, BODY, message_id="msg_1", timestamp=1700000000)


def own_certificate(path: Path) -> Path:
    """Key and certificate for 127.0.0.1, right in all but who signed it: itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    day = timedelta(days=1)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - day)
        .not_valid_after(datetime.now(UTC) + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    return path


def test_a_receiver_gets_body_and_headers_and_can_verify_them(receiver: Receiver) -> None:
    """Byte for byte, once, at the path and query that were given."""
    send(OPEN, receiver.url + "/200?token=a%20b")
    [(path, headers, body)] = receiver.seen
    assert (path, body, headers["content-type"]) == ("/200?token=a%20b", BODY, "application/json")
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("msg_1", "1700000000")
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{digest}"
    assert receiver.connections == 1


def test_a_password_of_the_machine_is_not_sent(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the process knows its home, and .netrc there names the host."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login we password ours\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    send(OPEN, receiver.url + "/200")
    assert [headers.get("authorization") for _, headers, _ in receiver.seen] == [None]


def test_the_rest_of_an_answer_is_not_read(receiver: Receiver) -> None:
    """A status is enough, however much would follow."""
    send(OPEN, receiver.url + "/200/endless")
    assert len(receiver.seen) == 1


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/500", "answers 500: answer 200"),
        ("/404/endless", "answers 404: answer 200"),
        ("/302", "answers 302, and redirects are not followed"),
        ("/307", "answers 307, and redirects are not followed"),
        ("/308/endless", "answers 308, and redirects are not followed"),
    ],
)
def test_another_status_is_a_failure(receiver: Receiver, path: str, words: str) -> None:
    """One request is made, where it was told to, and a redirect to the same host is not followed either."""
    with pytest.raises(WebhookFailed, match=words):
        send(OPEN, receiver.url + path)
    assert [seen for seen, _, _ in receiver.seen] == [path]


@pytest.mark.parametrize("path", ["/silent", "/dripping"])
def test_a_slow_receiver_is_left(receiver: Receiver, path: str) -> None:
    """However many bytes drip in the time that there is for all of it."""
    with pytest.raises(WebhookFailed, match=r"took more than 3 s\): answer first"):
        send(WebhookSender(SECRET, 3, LOOPBACK), receiver.url + path)


def test_a_port_where_nobody_answers_is_a_failure() -> None:
    """The message says the kind of error and not the query."""
    with closing(socket.socket()) as taken:  # bound and not listening: nobody else gets the port meanwhile
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/hook"
        with pytest.raises(WebhookFailed) as error:
            send(OPEN, url + "?token=hidden")
    assert error.value.message == f"webhook '{url}' did not answer (ConnectionError): check that it can be reached"


def test_a_certificate_that_nobody_vouches_for_is_not_trusted(receiver: Receiver, tmp_path: Path) -> None:
    """No message goes to whom it cannot be told apart from."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own_certificate(tmp_path / "certificate.pem"))
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True, do_handshake_on_connect=False)
    with pytest.raises(WebhookFailed, match="SSLError"):
        send(OPEN, receiver.url.replace("http:", "https:") + "/200")
    assert (receiver.connections, receiver.seen) == (1, [])


@pytest.mark.parametrize("url", OURS)
def test_our_own_network_is_not_posted_to(receiver: Receiver, url: str) -> None:
    """However its address is written; nobody is connected to."""
    with pytest.raises(WebhookFailed, match=r"is refused \(Resolved address for host .* is denied by policy\)"):
        send(CLOSED, url.format(port=receiver.server_port))
    assert receiver.connections == 0


def test_what_is_allowed_opens_nothing_else(receiver: Receiver) -> None:
    """With loopback allowed, the address of a cloud's metadata is refused as before."""
    with pytest.raises(WebhookFailed, match="is refused"):
        send(OPEN, "http://169.254.169.254/latest/meta-data/")
