"""Fetches the weights of every f5 model before a replica asks: python -m serve_app.weights [--config deploy.yaml]

Runs on the base install, without torch or a GPU. What happens goes to stderr, where the files lie to stdout.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import yaml
from pydantic import ValidationError

from serve_app.errors import ConfigError, ServiceError
from serve_app.settings import BuildArgs, F5Settings, NodeSettings, StoreSettings
from serve_app.storage import s3_store
from serve_app.weights.disk import human
from serve_app.weights.node import NodeWeights
from serve_app.weights.sources import F5Sources

__all__ = ["ProgressBar", "main", "sources_of"]

IMPORT_PATH = "serve_app.app:build"
LICENCE = (
    "The published F5-TTS weights are CC-BY-NC 4.0: no commercial use. (The code is MIT; name a checkpoint of your own "
    "as models[].source.)"
)
BAR_COLUMNS = 30
REDRAW_S = 0.1


def main(arguments: Sequence[str] | None = None, make: Callable[..., NodeWeights] = NodeWeights) -> int:
    """The exit status. `make` opens the node's weights."""
    parser = argparse.ArgumentParser(prog="python -m serve_app.weights", description="Fetch the weights of f5 models.")
    parser.add_argument("--config", type=Path, help="default: ./deploy.yaml where it exists, else the pinned weights")
    given: Path | None = parser.parse_args(arguments).config
    _show_events(sys.stderr)
    try:
        _fetch_all(sources_of(given), make)
    except ServiceError as error:
        print(error.message, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what has come so far is kept, and the next run goes on from there", file=sys.stderr)
        return 130
    return 0


def sources_of(config: Path | None) -> list[F5Sources]:
    """Of every f5 model that `config` lists; the pinned ones for `models: auto`. Raises ConfigError."""
    if config is None:
        config = Path("deploy.yaml")
        if not config.exists():
            return [F5Sources()]
    try:
        read = yaml.safe_load(config.read_text())
        listed = [BuildArgs.model_validate(args).models for args in _all_args(read)]
    except OSError as error:
        raise ConfigError(f"--config is {str(config)!r}, which cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise ConfigError(f"{config} is not a configuration of the service: {error}") from error
    if not listed:
        raise ConfigError(f"{config} has no application with import_path {IMPORT_PATH}: name the service's deploy.yaml")
    sources = []
    for models in listed:
        for model in (F5Settings(),) if models == "auto" else models:
            if isinstance(model, F5Settings):
                sources.append(F5Sources(model.source, model.vocoder, model.vocab))
    return list(dict.fromkeys(sources))


def _all_args(read: object) -> list[Mapping[str, Any]]:
    applications = read.get("applications") if isinstance(read, dict) else None
    return [
        each.get("args") or {}
        for each in applications or ()
        if isinstance(each, dict) and each.get("import_path") == IMPORT_PATH
    ]


def _fetch_all(sources: Sequence[F5Sources], make: Callable[..., NodeWeights]) -> None:
    if not sources:
        print("no f5 model is listed: nothing to fetch", file=sys.stderr)
        return
    settings = StoreSettings.from_environment(os.environ)
    weights = make(NodeSettings.from_environment(os.environ), s3_store(settings) if settings.bucket else None)
    if any(each.checkpoint is None for each in sources):
        print(LICENCE, file=sys.stderr)
    for each in sources:
        bar = ProgressBar(sys.stderr)
        try:
            files = weights.fetch(each, bar)
        finally:
            bar.close()
        for path in (files.checkpoint, files.vocoder, files.vocab):
            if path is not None:
                print(path)
    weights.wait_stored()


class ProgressBar:
    """One line that is drawn over and over on a terminal; elsewhere a line for every tenth of a file."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._clock = out, clock
        self._name, self._tenth, self._drawn_s, self._open = "", 0, float("-inf"), False

    def __call__(self, name: str, done: int, size: int) -> None:
        if name != self._name:
            self.close()
            self._name, self._tenth = name, 0
        if not self._out.isatty():
            tenth = done * 10 // size
            if tenth > self._tenth:
                print(f"{name}: {tenth * 10} % of {human(size)}", file=self._out, flush=True)
                self._tenth = tenth
        elif done == size or self._clock() - self._drawn_s >= REDRAW_S:
            bar = "#" * (BAR_COLUMNS * done // size)
            text = f"\r{name} [{bar:<{BAR_COLUMNS}}] {human(done)} of {human(size)}"
            print(f"{text:<100}", end="", file=self._out, flush=True)
            self._drawn_s, self._open = self._clock(), True

    def close(self) -> None:
        """End the line, where one is open."""
        if self._open:
            print(file=self._out, flush=True)
            self._open = False


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        return " ".join([record.getMessage(), *(f"{name}={value}" for name, value in fields.items())])


def _show_events(out: TextIO) -> None:
    """The service's log events for a person: a line of plain text each."""
    logger = logging.getLogger("serve_app")
    handler = logging.StreamHandler(out)
    handler.setFormatter(_PlainFormatter())
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel("INFO")


if __name__ == "__main__":
    sys.exit(main())
