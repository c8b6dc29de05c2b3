"""Unit tests start no Ray."""

import logging

import pytest


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch):
    """Fails a unit test that would start or join a cluster."""
    import ray

    def refuse(*args, **kwargs):
        raise AssertionError("unit tests must not start Ray: write a test in tests/integration or tests/e2e")

    monkeypatch.setattr(ray, "init", refuse)


@pytest.fixture(autouse=True)
def _plain_logging():
    """logs.configure() of one test must not change what caplog sees in the next."""
    logger = logging.getLogger("serve_app")
    before = (logger.handlers[:], logger.propagate, logger.level)
    yield
    logger.handlers[:], logger.propagate, level = before
    logger.setLevel(level)
