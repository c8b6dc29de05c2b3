"""What is to be done, in which form and with how much space, from facts that are given: no machine is asked."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from env_setup.report import as_json, table
from tests.support.machines import GB, HEAVY, SERVER, Look, OneDisk, looking, verdicts


@pytest.fixture
def look(tmp_path: Path) -> Look:
    return looking(tmp_path)


def test_a_laptop_is_a_go_for_preview(look):
    """No GPU is a warning, and nothing is to be done."""
    plan, found = look()
    assert verdicts(found, "fail") == []
    assert verdicts(found, "warn") == ["GPU"]
    assert found["GPU"].found == "no NVIDIA GPU: f5 will not be deployed, preview will"
    assert [(step.name, step.skip is None) for step in plan] == [("flash_attn", False), ("weights", False)]


def test_a_gpu_server_with_a_lean_environment_lets_ray_install(look):
    """The plan shows what Ray will write: the copy of the environment and the closure."""
    plan, found = look(SERVER)
    assert verdicts(found, "fail") == []
    assert found["form ray"].verdict == "ok"
    assert [step.name for step in plan] == ["flash_attn", "weights", "ray"]
    assert [(need.what, need.size_bytes) for need in plan[2].needs] == [
        ("copy of the environment, in every Ray session", 800_000_000),
        ("download", 5_600_000_000),
        ("unpack", 320_000_000),
    ]


def test_ray_over_a_venv_with_torch_is_refused(look):
    """6.3 GB a session were the old worker's undoing."""
    _, found = look(running=HEAVY, form="ray")
    assert verdicts(found, "fail") == ["form ray"]
    assert "6.3 GB" in found["form ray"].found
    assert "--form installed" in found["form ray"].found


def test_a_system_python_with_torch_is_not_copied(look):
    """Ray uses --system-site-packages there."""
    _, found = look(running=replace(HEAVY, is_venv=False), form="ray")
    assert verdicts(found, "fail") == []


def test_torch_in_the_running_environment_is_used(look):
    """Form installed, and the wheel goes there; both steps' needs lie on one disk and are added."""
    plan, found = look(SERVER, HEAVY)
    assert found["form installed"].verdict == "ok"
    assert [step.name for step in plan if step.skip is None] == ["flash_attn", "weights"]
    size = sum(need.size_bytes for step in plan for need in step.needs)
    assert found["free disk"].needed.startswith(f"{size / GB:.1f} GB: flash_attn")
    _, found = look(SERVER, HEAVY, disk=OneDisk(free=size))
    assert found["free disk"].verdict == "ok"
    _, found = look(SERVER, HEAVY, disk=OneDisk(free=size - 1))
    assert found["free disk"].verdict == "fail"
    assert f"{size / GB:.1f} GB needed" in found["free disk"].found


def test_steps_on_two_disks_are_not_added(look):
    """Each file system is compared with what it gets."""
    disk = OneDisk(free=int(1.5 * GB), devices={"weights": 1})
    _, found = look(SERVER, HEAVY, disk=disk)
    assert found["free disk"].verdict == "ok"


def test_a_new_environment_is_planned_with_or_without_hard_links(look, tmp_path):
    """uv links out of its cache where both are on one file system, and copies where they are not."""
    plan, found = look(SERVER, directory=tmp_path / "new")
    assert verdicts(found, "fail") == []
    assert [step.name for step in plan] == ["environment", "flash_attn", "weights"]
    assert [need.size_bytes for need in plan[0].needs] == [5_600_000_000, 320_000_000]
    plan, _ = look(SERVER, directory=tmp_path / "new", disk=OneDisk(devices={"/cache": 7}))
    assert [need.size_bytes for need in plan[0].needs] == [5_600_000_000, 6_400_000_000]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"locks": Path("/nowhere")}, "--locks is '/nowhere', which does not hold base.lock"),
        ({"directory": "file"}, "which is not a directory"),
        ({"directory": "full"}, "which holds something else than a venv"),
        ({"directory": "readonly/x"}, "is mounted read-only"),
    ],
)
def test_where_nothing_may_be_built_is_said(look, tmp_path, asked, says):
    """Before anything is written."""
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    directory = tmp_path / asked.get("directory", "new")
    _, found = look(disk=OneDisk(broken="readonly"), **(asked | {"directory": directory}))
    assert "new environment" in verdicts(found, "fail")
    assert says in found["new environment"].found


def test_an_image_is_prepared_without_a_gpu(look):
    """--for-gpu: a missing driver is a warning, and the steps are to be done."""
    plan, found = look(running=HEAVY, for_gpu=True)
    assert verdicts(found, "fail") == []
    assert {"GPU", "driver and CUDA"} <= set(verdicts(found, "warn"))
    assert [step.name for step in plan if step.skip is None] == ["flash_attn", "weights"]


def test_the_report_says_the_same_to_people_and_machines(look):
    """The plan first, then the findings, then one line; nothing is cut off."""
    plan, found = look(running=HEAVY, form="ray")
    text, findings = table(plan, list(found.values())), list(found.values())
    assert text.index("Plan") < text.index("1. flash_attn") < text.index("Findings") < text.index("fail  form ray")
    assert text.splitlines()[-1].startswith("NO-GO: form ray: /lean is a venv that holds torch")
    answer = json.loads(as_json(plan, findings))
    assert (answer["go"], [step["name"] for step in answer["plan"]]) == (False, ["flash_attn", "weights"])
    assert answer["findings"][4]["verdict"] == "fail"
    _, good = look()
    assert table([], list(good.values())).splitlines()[-1] == "GO"
