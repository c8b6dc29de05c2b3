"""Which wheel of flash_attn is installed, and what stands in its way, from given facts: no machine is asked."""

from dataclasses import replace
from pathlib import Path

import pytest

from env_setup.machine import Gpu
from env_setup.wheels import choose_wheel, sha256_of
from tests.support.machines import GB, HEAVY, SERVER, Look, looking, verdicts
from tests.support.stand_in_wheel import write_wheel


@pytest.fixture
def look(tmp_path: Path) -> Look:
    return looking(tmp_path)


@pytest.mark.parametrize(
    ("machine", "environment", "reason"),
    [
        ({}, {"cxx11_abi": True, "torch": "2.7.0"}, "it is for torch 2.6 and the torch is 2.7.0"),
        ({}, {"torch_cuda": "11.8"}, "it is for CUDA 12 and torch's is 11.8"),
        ({"glibc": "2.31"}, {}, "it needs glibc 2.32 and the machine has 2.31"),
        ({"gpus": (Gpu("Tesla T4", 16 * GB, "7.5"),)}, {}, "it needs compute capability 8.0 and the Tesla T4 has 7.5"),
        ({"platform": "linux_aarch64"}, {}, "it is for linux_x86_64 and the machine is linux_aarch64"),
    ],
)
def test_a_wheel_that_does_not_fit_is_a_warning_unless_it_was_asked_for(look, machine, environment, reason):
    """SDPA is used and the reason is told; with --attention flash_attn it is a no-go."""
    here, there = replace(SERVER, **machine), replace(HEAVY, **environment)
    _, found = look(here, there)
    assert found["flash_attn"].verdict == "warn"
    assert found["flash_attn"].found.startswith("SDPA will be used: ")
    assert reason in found["flash_attn"].found
    _, found = look(here, there, attention="flash_attn")
    assert found["flash_attn"].verdict == "fail"
    assert reason in found["flash_attn"].found


def test_the_other_abi_gets_the_other_pinned_wheel(look):
    """A torch with C++11 ABI TRUE is no reason for SDPA."""
    plan, _ = look(SERVER, replace(HEAVY, cxx11_abi=True))
    assert "cxx11abiTRUE-cp311" in plan[0].does


def test_what_is_installed_is_not_installed_again(look):
    """Exactly this build is present."""
    held = replace(HEAVY, flash_attn="2.8.2", flash_attn_wheel=choose_wheel({}).filename)
    plan, found = look(SERVER, held)
    assert (found["flash_attn"].verdict, plan[0].skip is None) == ("ok", False)
    plan, _ = look(SERVER, replace(held, flash_attn="2.8.1"))
    assert plan[0].skip is None


def test_an_overriding_wheel_is_checked_before_anything_runs(look, tmp_path):
    """Path, hash, damage and fit each have a message of their own, on a machine without a GPU too."""
    good = write_wheel(tmp_path / "w")
    plan, found = look(running=HEAVY, environ={"FLASH_ATTN_WHEEL": f"{good}#sha256={sha256_of(good)}"})
    assert (found["flash_attn"].verdict, plan[0].skip) == ("ok", None)
    damaged = tmp_path / good.name
    damaged.write_bytes(b"no zip")
    for value, says in {
        str(tmp_path / "no" / good.name): "there is no such file on this machine",
        f"{good}#sha256={'0' * 64}": f"has sha256 {sha256_of(good)}, and FLASH_ATTN_WHEEL says {'0' * 64}",
        f"{good}#md5=1": "write #sha256= and 64 hex digits",
        str(damaged): "is damaged: a wheel is a zip file",
        str(write_wheel(tmp_path, python_tag="cp310")): "it is for cp310 and the Python is cp311",
        "ftp://host/x.whl": "give an http(s):// or file:// URL",
        "https://host/torch-2.6.0-py3-none-any.whl": "is not a wheel of flash_attn",
    }.items():
        _, found = look(running=HEAVY, environ={"FLASH_ATTN_WHEEL": value})
        assert (found["flash_attn"].verdict, says in found["flash_attn"].found) == ("fail", True), found["flash_attn"]


def test_a_wheel_that_cannot_be_had_is_a_no_go(look):
    """The URL, who named it, what it answered and what to set."""
    _, found = look(SERVER, HEAVY, unfound="answers 404")
    assert found["flash_attn"].verdict == "fail"
    assert "(env_setup/pins.py) answers 404: set FLASH_ATTN_WHEEL" in found["flash_attn"].found
    _, found = look(SERVER, HEAVY, unfound="answers 404", attention="sdpa")
    assert verdicts(found, "fail") == []
