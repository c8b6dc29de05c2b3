"""What `make run` runs, as far as it needs no Ray."""

import socket
import stat
import sys
from types import SimpleNamespace

import pytest
import yaml
from ray import serve
from ray.serve.schema import ApplicationStatus

from serve_app import launcher


def test_a_port_in_use_is_said_before_anything_starts(tmp_path, monkeypatch, capsys):
    """Exit code 1 and the way out, in place of a stack trace half a minute later."""
    config = tmp_path / "deploy.yaml"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config.write_text(yaml.safe_dump({"http_options": {"host": "127.0.0.1", "port": port}}))
        monkeypatch.setattr(sys, "argv", ["launcher", str(config)])
        assert launcher.main() == 1
    assert f"port {port} is in use" in capsys.readouterr().err


@pytest.mark.parametrize("existing", [None, "secret"])
def test_the_token_is_readable_by_its_user_alone(tmp_path, existing):
    """A new token is made; one that Ray made before is kept, and closed to others."""
    path = tmp_path / ".ray" / "auth_token"
    if existing:
        path.parent.mkdir()
        path.write_text(existing)
        path.chmod(0o644)
    launcher._private_token(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == (existing or path.read_text())
    assert len(path.read_text()) == (len(existing) if existing else 64)


@pytest.mark.parametrize(("host", "options"), [("0.0.0.0", []), ("127.0.0.1", ["--host", "0.0.0.0"])])
def test_another_address_than_loopback_is_refused_unless_told(tmp_path, monkeypatch, capsys, host, options):
    """Without API keys nothing listens to other machines by accident, whether the file or the option names them."""
    config = tmp_path / "deploy.yaml"
    config.write_text(yaml.safe_dump({"http_options": {"host": host, "port": 1}}))
    monkeypatch.setattr(sys, "argv", ["launcher", str(config), *options])
    assert launcher.main() == 1
    assert "--allow-anonymous" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
    ],
)
def test_the_service_is_asked_by_a_name_that_it_answers_to(host, url):
    """Bound to all addresses, it is still called by a loopback name: any other is refused by allowed_hosts."""
    assert launcher.local_url(host, 8000) == url


@pytest.mark.parametrize(
    ("polls", "found"),
    [
        (["", "19", "19", "18"], True),
        (["", "19", "19", ""], False),
        (["17"], False),
        (["", "DEPLOY_FAILED"], True),
    ],
    ids=["a second start fails", "the second start works", "only one failure was seen", "Serve gives up"],
)
def test_two_starts_that_fail_are_enough(monkeypatch, polls, found):
    """Serve would try on for minutes; what is wrong is said without its tracebacks."""
    told: list[str] = []
    monkeypatch.setattr(serve, "status", lambda: SimpleNamespace(applications={"speech": _application(told[-1])}))
    failures = launcher._Failures()
    seen = [failures.found() for poll in polls if told.append(poll) is None]
    assert seen[:-1] == [None] * (len(polls) - 1)
    assert (seen[-1] == "speech: it failed\nf5: no such file") is found


def _application(poll: str) -> SimpleNamespace:
    """As Serve tells it: how often it will still try, or that it has given up."""
    cause = "ray::init\nserve_app.errors.ConfigError: no such file"
    message = f"A replica failed to start with exception. Retrying {poll} more time(s). Error:\n{cause}"
    failed = poll == "DEPLOY_FAILED"
    return SimpleNamespace(
        status=ApplicationStatus.DEPLOY_FAILED if failed else ApplicationStatus.DEPLOYING,
        message="it failed",
        deployments={"f5": SimpleNamespace(message=cause if failed else message if poll else "")},
    )
