"""The findings, from facts that are given: no machine is asked."""

from dataclasses import replace
from pathlib import Path

import pytest

from env_setup.pins import PINNED_WEIGHTS
from tests.support.machines import GB, LEAN, SERVER, Look, OneDisk, looking


@pytest.fixture
def look(tmp_path: Path) -> Look:
    return looking(tmp_path)


@pytest.mark.parametrize(
    ("environ", "verdict", "says"),
    [
        ({"S3_BUCKET": "voices", "AWS_ENDPOINT_URL": "https://s3.example"}, "ok", "https://s3.example answers"),
        ({"S3_BUCKET": "voices", "AWS_REGION": "eu-west-1"}, "ok", "https://s3.eu-west-1.amazonaws.com answers"),
        ({"S3_BUCKET": "voices", "AWS_ENDPOINT_URL": "s3.example"}, "fail", "it begins with http:// or https://"),
        ({"AWS_ENDPOINT_URL": "https://s3.example"}, "fail", "S3_BUCKET is not set"),
        ({"AWS_ACCESS_KEY_ID": "a"}, "fail", "AWS_SECRET_ACCESS_KEY is not set"),
        ({"AWS_SECRET_ACCESS_KEY": "a", "S3_BUCKET": "b"}, "fail", "AWS_ACCESS_KEY_ID is not set"),
        ({"DATA_DIR": "/somewhere"}, "ok", "/somewhere"),
        ({"DATA_DIR": "/readonly/data"}, "fail", "DATA_DIR is /readonly/data, and /readonly/data is mounted read-only"),
    ],
)
def test_the_store(look, environ, verdict, says):
    """A bucket answers, or a directory can be written; the variable that is wrong is named."""
    _, found = look(disk=OneDisk(broken="/readonly"), environ=environ)
    assert found["store"].verdict == verdict
    assert says in found["store"].found


def test_a_bucket_that_does_not_answer_names_the_variable(look):
    """Set or not, it is AWS_ENDPOINT_URL that decides where the request goes."""
    environ = {"S3_BUCKET": "voices", "AWS_ENDPOINT_URL": "https://s3.example"}
    _, found = look(environ=environ, unanswered="refused")
    assert found["store"].verdict == "fail"
    assert found["store"].found.startswith("AWS_ENDPOINT_URL is 'https://s3.example', and there is no answer: refused")
    _, found = look(environ={"S3_BUCKET": "voices"}, unanswered="refused")
    assert found["store"].found.startswith(
        "AWS_ENDPOINT_URL is not set, so the bucket is asked of AWS at https://s3.us"
    )


def sparse_weights(folder: Path) -> None:
    for file in PINNED_WEIGHTS:
        (folder / file.key).parent.mkdir(parents=True, exist_ok=True)
        with (folder / file.key).open("wb") as out:
            out.truncate(file.size_bytes)


def test_weights_that_are_there_need_no_space(look, tmp_path):
    """Present in their size; then a read-only directory is no matter either."""
    folder = tmp_path / "weights"
    _, found = look(SERVER, disk=OneDisk(broken="weights"))
    assert found["weights directory"].verdict == "fail"
    assert f"WEIGHTS_DIR is {folder}" in found["weights directory"].found
    sparse_weights(folder)
    plan, found = look(SERVER, disk=OneDisk(broken="weights"))
    assert (found["weights"].verdict, plan[1].needs) == ("ok", ())
    short = folder / PINNED_WEIGHTS[0].key
    with short.open("r+b") as out:
        out.truncate(7)
    plan, found = look(SERVER)
    assert f"not of their size: {short}" in found["weights"].found
    assert [need.size_bytes for need in plan[1].needs] == [PINNED_WEIGHTS[0].size_bytes]


@pytest.mark.parametrize(
    ("machine", "running", "name", "verdict"),
    [
        ({}, {"python": "3.12.3"}, "Python", "fail"),
        ({"glibc": "2.17"}, {}, "glibc", "fail"),
        ({"driver": "470.57.02"}, {}, "driver and CUDA", "fail"),
        ({"driver": None}, {}, "driver and CUDA", "warn"),
        ({"available_bytes": GB}, {}, "memory", "warn"),
        ({}, {"pip": None}, "form ray", "fail"),
    ],
)
def test_what_is_too_old_or_too_small(look, machine, running, name, verdict):
    """On a machine that is to run f5."""
    _, found = look(replace(SERVER, **machine), replace(LEAN, **running))
    assert found[name].verdict == verdict


def test_a_prepared_interpreter_that_is_not_there_is_a_no_go(look):
    """F5_PYTHON is named."""
    _, found = look(environ={"F5_PYTHON": "/no/bin/python"})
    assert found["form prepared"].verdict == "fail"
    assert found["form prepared"].found.startswith("there is no interpreter at /no/bin/python")
