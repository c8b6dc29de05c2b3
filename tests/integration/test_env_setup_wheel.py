"""A wheel of flash_attn goes into a prepared environment whole, or the one from before stays."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from env_setup.build import StepFailed
from env_setup.flash_attn import install_wheel
from env_setup.guard import CONSTRAINTS, PIP_CONF
from env_setup.machine import describe_environment
from env_setup.wheels import choose_wheel, sha256_of
from tests.support.http_servers import serving_files
from tests.support.installing import World, contents, make_world
from tests.support.stand_in_wheel import write_wheel


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.fixture
def prepared(world: World, tmp_path: Path) -> Path:
    """With a flash_attn of another build."""
    old = write_wheel(tmp_path / "wheels", version="2.8.1")
    directory = tmp_path / "venv-f5"
    assert world.installer(directory=directory, environ={"FLASH_ATTN_WHEEL": str(old)}).install() == 0, world.printed
    return directory


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    with serving_files(tmp_path / "wheels") as url:
        yield url


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_wheel_from_a_url_replaces_another(world: World, prepared: Path, web: str, tmp_path: Path, installer: str):
    """Its hash is checked on arrival, by pip too where there is no uv; a wrong one leaves what was there."""
    wheel = write_wheel(tmp_path / "wheels")
    before = contents(prepared)
    if installer == "pip":
        world.running = replace(world.running, uv=None)
    environ = {"UV_OFFLINE": "0", "PATH": ""}
    for sha256, status in (("0" * 64, 1), (sha256_of(wheel), 0)):
        asked = {"FLASH_ATTN_WHEEL": f"{web}/{wheel.name}#sha256={sha256}"}
        assert world.installer(directory=prepared, weights=False, environ=environ | asked).install() == status, (
            world.printed
        )
        if status == 1:
            assert "(FLASH_ATTN_WHEEL) could not be installed into" in world.said[-1]
            assert sha256_of(wheel) in world.said[-1]
            changed = {name for name, at in contents(prepared).items() if before.get(name) != at}
            assert changed <= {PIP_CONF, CONSTRAINTS}
    assert describe_environment(prepared / "bin/python").flash_attn == "2.8.2"
    assert "flash_attn==2.8.2" in (prepared / CONSTRAINTS).read_text()


def test_a_url_that_answers_404_stops_before_anything(world: World, prepared: Path, web: str):
    """NO-GO, and the findings say what to set."""
    before, wheel = contents(prepared), "flash_attn-2.8.2-cp311-cp311-linux_x86_64.whl"
    environ = {"FLASH_ATTN_WHEEL": f"{web}/no/{wheel}", "UV_OFFLINE": "0"}
    assert world.installer(directory=prepared, environ=environ).install() == 1
    assert world.printed.splitlines()[-1].startswith("NO-GO: flash_attn: ")
    assert "answers 404: set FLASH_ATTN_WHEEL" in " ".join(world.printed.split())
    assert contents(prepared) == before


def test_a_wheel_that_is_not_what_its_name_says_is_taken_out_again(world: World, prepared: Path, tmp_path: Path):
    """METADATA of another version: the old one stays, and works."""
    wheel = write_wheel(tmp_path / "wheels", version="2.8.3", metadata_version="2.7.0")
    before = contents(prepared)
    assert world.installer(directory=prepared, environ={"FLASH_ATTN_WHEEL": str(wheel)}).install() == 1
    assert world.said[-1].startswith("flash_attn failed: ")
    assert contents(prepared) == before
    assert describe_environment(prepared / "bin/python").flash_attn == "2.8.1"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 0", "installed flash_attn nowhere"),
        ("mkdir -p {site}/flash_attn; echo half > {site}/flash_attn/__init__.py; exit 1", "ended with exit status 1"),
    ],
    ids=["it did nothing", "it stopped half-way"],
)
def test_an_installer_is_not_believed(prepared: Path, tmp_path: Path, script: str, says: str):
    """Whatever it leaves or claims, the old flash_attn stands there again."""
    target = describe_environment(prepared / "bin/python")
    installer = ["sh", "-c", script.format(site=target.site_packages)]
    before = contents(prepared)
    wheel = choose_wheel({"FLASH_ATTN_WHEEL": str(write_wheel(tmp_path / "wheels"))})
    with pytest.raises(StepFailed, match=says):
        install_wheel(target, wheel, installer, os.environ)
    assert contents(prepared) == before


def test_the_first_failure_stops_the_rest(world: World, prepared: Path, tmp_path: Path, capfd):
    """No weights are fetched for an environment that is not what it should be."""
    wheel = write_wheel(tmp_path / "wheels", version="2.8.3", metadata_version="2.7.0")
    capfd.readouterr()
    assert world.installer(directory=prepared, for_gpu=True, environ={"FLASH_ATTN_WHEEL": str(wheel)}).install() == 1
    assert "fetching" not in capfd.readouterr().out
