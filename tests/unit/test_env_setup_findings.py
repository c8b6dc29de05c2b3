"""The plan and the findings, from facts that are given: no machine is asked."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from env_setup.disk import Disk
from env_setup.facts import Request, gather
from env_setup.findings import Probes, all_findings
from env_setup.machine import Environment, Gpu, Machine
from env_setup.pins import PINNED_WEIGHTS
from env_setup.plan import make_plan
from env_setup.report import as_json, table
from env_setup.wheels import choose_wheel, sha256_of
from tests.support.stand_in_wheel import write_wheel

GB = 10**9
UV = ("uv",)
LAPTOP = Machine("linux_x86_64", 2, 8 * GB, 6 * GB, glibc="2.36")
SERVER = replace(
    LAPTOP,
    available_bytes=7 * GB,
    driver="550.54.15",
    driver_cuda="12.4",
    gpus=(Gpu("NVIDIA L4", 24 * GB, "8.9"),),
    has_nvidia_gpu=True,
)
LEAN = Environment(
    Path("/lean/bin/python"), "3.11.7", "/lean", True, ray="2.60.0", numpy="2.4.6", uv="0.13.9", pip="26"
)
HEAVY = replace(LEAN, torch="2.6.0", torch_cuda="12.4", cxx11_abi=False, site_packages="/lean/site-packages")


class OneDisk(Disk):
    """All paths on one file system with this much space, unless `devices` says otherwise; all can be written."""

    def __init__(self, free: int = 100 * GB, devices: dict[str, int] | None = None, broken: str = "\0") -> None:
        self.free, self.devices, self.broken = free, devices or {}, broken

    def free_bytes(self, path):
        return self.free

    def device(self, path):
        return next((device for part, device in self.devices.items() if part in str(path)), 0)

    def problem(self, directory):
        return f"{directory} is mounted read-only" if self.broken in str(directory) else None

    def size_bytes(self, directory):
        return 800_000_000


@pytest.fixture
def look(tmp_path):
    """(plan, findings by name) of a machine and an environment."""
    locks = tmp_path / "locks"
    locks.mkdir()
    for name in ("base.lock", "f5.lock"):
        (locks / name).write_text(name)
    (tmp_path / "pyproject.toml").touch()

    def look(machine=LAPTOP, running=LEAN, disk=None, unanswered=None, unfound=None, environ=None, **asked):
        environ = {"WEIGHTS_DIR": str(tmp_path / "weights"), "UV_CACHE_DIR": "/cache"} | (environ or {})
        facts = gather(Request(environ, **({"locks": locks} | asked)), machine, running)
        probes = Probes(disk or OneDisk(), lambda url: unanswered, lambda url: unfound)
        plan = make_plan(facts, probes.disk)
        found = all_findings(facts, plan, probes, uv=UV, root=tmp_path)
        return plan, {finding.name: finding for finding in found}

    return look


def verdicts(found, verdict):
    return sorted(name for name, finding in found.items() if finding.verdict == verdict)


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
