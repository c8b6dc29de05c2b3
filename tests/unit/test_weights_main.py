"""The command that fetches weights before a replica asks."""

import io

import pytest
import yaml

from serve_app.errors import ConfigError, ModelLoadFailed
from serve_app.weights import F5Files, F5Sources
from serve_app.weights.__main__ import ProgressBar, main, sources_of

MINE = {"engine": "f5", "source": "/m.safetensors", "license": "mine", "languages": ["de"]}


class FakeWeights:
    """Says what was asked of it, in order."""

    def __init__(self, tmp_path, refusal=None):
        self.calls, self._at, self._refusal = [], tmp_path, refusal

    def __call__(self, node, store):
        self.calls.append(("made", store))
        return self

    def fetch(self, sources, progress):
        self.calls.append(sources)
        if self._refusal:
            raise self._refusal
        progress("m.safetensors", 10, 10)
        return F5Files(self._at / "m.safetensors", self._at / "voc")

    def wait_stored(self):
        self.calls.append("waited")


def deploy_yaml(folder, models, import_path="serve_app.app:build"):
    path = folder / "deploy.yaml"
    path.write_text(yaml.safe_dump({"applications": [{"import_path": import_path, "args": {"models": models}}]}))
    return path


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch, tmp_path):
    for name in ("S3_BUCKET", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_every_listed_f5_model_is_fetched(tmp_path):
    """preview has nothing to fetch; two models of the same files are one."""
    models = [{"engine": "preview"}, MINE, MINE | {"name": "again"}, {"engine": "f5", "name": "published"}]
    assert sources_of(deploy_yaml(tmp_path, models)) == [F5Sources("/m.safetensors"), F5Sources()]


@pytest.mark.parametrize("models", ["auto", None])
def test_without_a_list_the_pinned_weights_are_meant(tmp_path, models):
    """`models: auto`, or no deploy.yaml at all."""
    if models:
        deploy_yaml(tmp_path, models)
    assert sources_of(None) == [F5Sources()]


def test_the_repositorys_own_configuration_is_read():
    """deploy.yaml as it is delivered names the pinned weights."""
    from pathlib import Path

    assert sources_of(Path(__file__).parents[2] / "deploy.yaml") == [F5Sources()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "--config is .*deploy.yaml', which cannot be read"),
        ("a: [", "deploy.yaml is not a configuration"),
        ("applications: []", "no application with import_path serve_app"),
        ("{applications: [{import_path: 'serve_app.app:build', args: {modles: auto}}]}", "modles"),
    ],
)
def test_a_configuration_that_is_wrong_is_named(tmp_path, text, message):
    """Missing, no YAML, without the service, or with an unknown key."""
    if text is not None:
        (tmp_path / "deploy.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        sources_of(tmp_path / "deploy.yaml")


def test_it_prints_where_the_files_lie_and_the_licence_once(tmp_path, capsys):
    """Paths on stdout; everything else on stderr; the upload is waited for."""
    weights = FakeWeights(tmp_path)
    assert main([], weights) == 0
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'm.safetensors'}\n{tmp_path / 'voc'}\n"
    assert err.count("CC-BY-NC") == 1
    assert weights.calls == [("made", None), F5Sources(), "waited"]


def test_weights_of_ones_own_need_no_word_on_the_published(tmp_path, capsys):
    """The licence is that of the published checkpoint."""
    assert main(["--config", str(deploy_yaml(tmp_path, [MINE]))], FakeWeights(tmp_path)) == 0
    assert "CC-BY-NC" not in capsys.readouterr().err


def test_without_an_f5_model_nothing_is_fetched(tmp_path, capsys):
    """That is said, and is no failure."""
    weights = FakeWeights(tmp_path)
    assert main(["--config", str(deploy_yaml(tmp_path, [{"engine": "preview"}]))], weights) == 0
    assert (weights.calls, capsys.readouterr().err) == ([], "no f5 model is listed: nothing to fetch\n")


def test_a_failure_is_one_message_and_a_status(tmp_path, capsys):
    """No traceback: the message is for the person who can mend it."""
    assert main([], FakeWeights(tmp_path, ModelLoadFailed("the disk is full"))) == 1
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[-1]) == ("", "the disk is full")
    assert "Traceback" not in err


def test_an_interruption_says_that_it_goes_on(tmp_path, capsys):
    """Ctrl-C has the status that a shell expects of it."""
    assert main([], FakeWeights(tmp_path, KeyboardInterrupt())) == 130
    assert "goes on from there" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_elsewhere_is_a_line_for_each_tenth():
    """At most ten lines of a file, however many blocks come."""
    out = io.StringIO()
    bar = ProgressBar(out)
    for done in range(1, 1001):
        bar("m.safetensors", done, 1000)
    bar("v.bin", 1000, 1000)
    bar.close()
    assert out.getvalue().splitlines() == [
        *(f"m.safetensors: {tenth * 10} % of 1.00 kB" for tenth in range(1, 11)), "v.bin: 100 % of 1.00 kB"
    ]  # fmt: skip


def test_progress_on_a_terminal_is_one_line():
    """Drawn at most ten times a second, and at its end whatever the time."""
    out, times = Terminal(), iter([0.0, 0.0, 0.05, 0.2, 0.2, 0.21])
    bar = ProgressBar(out, clock=lambda: next(times))
    for done in (1, 2, 500, 1000):
        bar("m", done, 1000)
    bar.close()
    drawn = [line.rstrip() for line in out.getvalue().split("\r")[1:]]
    assert drawn == [
        f"m [{'':30}] 1 bytes of 1.00 kB",
        f"m [{'#' * 15:30}] 500 bytes of 1.00 kB",
        f"m [{'#' * 30}] 1.00 kB of 1.00 kB",
    ]
    assert out.getvalue().endswith("\n")
