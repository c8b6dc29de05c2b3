"""Whether an environment can run f5 beside a cluster."""

from dataclasses import replace
from pathlib import Path

import pytest

from env_setup.facts import _is_spoilt
from env_setup.machine import Environment
from env_setup.prepared import holds_wheel, problems
from env_setup.wheels import ChosenWheel, choose_wheel

WHEEL = choose_wheel({})
CLUSTER = Environment(Path("/c/bin/python"), "3.11.7", "/c", True, ray="2.60.0", numpy="2.4.6", has_serve_app=True)
GOOD = replace(
    CLUSTER,
    path=Path("/p/bin/python"),
    python="3.11.9",
    prefix="/p",
    torch="2.6.0+cu124",
    torchaudio="2.6.0",
    f5_tts="1.1.22",
    flash_attn="2.8.2",
    flash_attn_wheel=WHEEL.filename,
)


def test_one_that_fits_has_no_problems():
    """Another patch of Python and torch's local version do not matter."""
    assert problems(GOOD, CLUSTER, WHEEL) == []
    assert problems(replace(GOOD, flash_attn=None), CLUSTER, None) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"python": "3.12.1"}, "is Python 3.12.1 and the cluster runs 3.11.7"),
        ({"ray": "2.59.0"}, "has ray 2.59.0 and the cluster has ray 2.60.0"),
        ({"ray": None}, "has no ray and the cluster has ray 2.60.0"),
        ({"numpy": "1.26.4"}, "has numpy 1.26.4 and the cluster has numpy 2.4.6"),
        ({"torch": None}, "has no torch and needs 2.6.0"),
        ({"torch": "2.7.0"}, "has torch 2.7.0 and needs 2.6.0"),
        ({"torchaudio": None}, "has no torchaudio"),
        ({"f5_tts": None}, "has no f5-tts"),
        ({"has_serve_app": False}, "cannot import serve_app"),
        ({"flash_attn": None, "flash_attn_wheel": None}, f"has no flash_attn and needs {WHEEL.filename}"),
        ({"flash_attn": "2.8.3"}, f"needs {WHEEL.filename}"),
    ],
)
def test_each_difference_is_one_problem_with_its_remedy(change, says):
    """What was found, what is needed and the command that mends it."""
    (problem,) = problems(replace(GOOD, **change), CLUSTER, WHEEL)
    assert says in problem
    assert problem.startswith("/p/bin/python ")
    assert "python -m env_setup install --environment /p" in problem


@pytest.mark.parametrize(
    ("version", "file", "expected"),
    [
        ("2.8.2", WHEEL.filename, True),  # as the published wheels are installed
        ("2.8.2", WHEEL.filename.replace("+", "%2B"), True),
        ("2.8.2", WHEEL.filename.replace("FALSE", "TRUE"), False),  # another build of the same version
        ("2.8.2", None, True),  # nothing is recorded of the build
        ("2.8.2", "src", True),
        ("2.8.2+cu12torch2.6cxx11abifalse", None, True),
        ("2.8.2+cu12torch2.7cxx11abifalse", None, False),
        ("2.8.3", None, False),
        (None, None, False),
    ],
)
def test_the_build_of_flash_attn_is_told_by_what_was_recorded(version, file, expected):
    """Case and separators of the local part do not matter, as in PEP 440."""
    assert holds_wheel(replace(GOOD, flash_attn=version, flash_attn_wheel=file), WHEEL) is expected


def test_a_build_of_ones_own_is_another_wheel_of_the_same_version():
    """The published wheel and an own build both say 2.8.2: the recorded file name tells them apart."""
    own = ChosenWheel("file:///w/flash_attn-2.8.2-cp311-cp311-linux_x86_64.whl", None, "FLASH_ATTN_WHEEL")
    published = choose_wheel({})
    for held, wanted in ((own, published), (published, own)):
        environment = replace(GOOD, flash_attn="2.8.2", flash_attn_wheel=held.filename)
        assert (holds_wheel(environment, held), holds_wheel(environment, wanted)) == (True, False)


def test_a_completed_environment_that_no_longer_fits_is_built_again():
    """Its stamp is current, but Ray is another, or nothing runs there; a missing wheel alone is no reason."""
    assert _is_spoilt(None, GOOD)
    assert _is_spoilt(replace(GOOD, ray="2.59.0"), GOOD)
    assert not _is_spoilt(replace(GOOD, flash_attn=None, flash_attn_wheel=None), GOOD)
