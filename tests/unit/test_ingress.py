"""The Serve shell of the HTTP layer: what it says of each part, and what it gives on of its settings. No Serve here."""

import sys
from types import SimpleNamespace

import pytest
from ray.serve.schema import DeploymentStatus, DeploymentStatusOverview, DeploymentStatusTrigger, ReplicaState

from serve_app.api.services import PartStatus
from serve_app.deployments.explain import explain
from serve_app.deployments.ingress import Ingress, part_status
from serve_app.settings import BuildArgs, JobsSettings, PreviewSettings
from serve_app.storage import MemoryStore

LOADING, FAILED = DeploymentStatus.UPDATING, DeploymentStatus.DEPLOY_FAILED

INSTALL_FAILED = """Failed to update the deployments ['f5'].
ray.exceptions.RuntimeEnvSetupError: Failed to set up runtime environment.
  File ".../ray/_private/runtime_env/utils.py", line 105, in check_output_cmd
    raise SubprocessCalledProcessError(
Command '[... '-m', 'uv', 'pip', 'install', '-r', 'x/ray_runtime_env_internal_pip_requirements.txt']' returned non-zero
Last 50 lines of stdout:
    Resolved 1 package in 0.91ms
    error: Failed to read `flash-attn @ http://127.0.0.1:1/flash_attn.whl#sha256=00`
      cause: Hash mismatch for `flash-attn @ http://127.0.0.1:1/flash_attn.whl#sha256=00`

             Expected:
               sha256:00
"""
LOAD_FAILED = """The deployment failed to start 2 times in a row. Error:
  File "serve_app/models.py", line 81, in load_engine
    raise ModelLoadFailed(
serve_app.errors.ModelLoadFailed: models[].source is '/no', and there
is no such file on this node
"""


def deployment(status: DeploymentStatus, message: str = "", running: int = 0) -> DeploymentStatusOverview:
    states = {ReplicaState.RUNNING: running} if running else {ReplicaState.STARTING: 1}
    return DeploymentStatusOverview(status, DeploymentStatusTrigger.UNSPECIFIED, states, message)


@pytest.fixture
def switch_interval():
    """A replica sets it for its whole process."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


async def test_health_counts_replicas_by_the_jobs_settings(switch_interval):
    """A heartbeat that has not changed for `dead_after_s` of deploy.yaml is a dead one's, and not for the default."""
    args = BuildArgs(jobs=JobsSettings(heartbeat_s=1e-10, dead_after_s=1e-9))
    voices = SimpleNamespace(preparer=None, client=lambda store: None)
    ingress = Ingress(args, (PreviewSettings(),), MemoryStore(), None, voices, {"preview": None}, None, False)
    liveness = ingress._services.liveness
    assert [liveness.is_dead("a", "1"), liveness.is_dead("a", "1"), liveness.is_dead("a", "2")] == [False, True, False]


def test_a_running_replica_is_ready():
    """A replica runs only after its model was loaded and warmed; a later update does not take readiness away."""
    assert part_status(deployment(DeploymentStatus.HEALTHY, running=2)) == PartStatus("ready", 2)
    assert part_status(deployment(LOADING, "no resources for a third", running=2)) == PartStatus("ready", 2)


def test_what_is_loading_or_failed_has_serves_word():
    """The message says why there is no replica."""
    assert part_status(deployment(LOADING, "no resources")) == PartStatus("starting", 0, "no resources")
    assert part_status(deployment(FAILED, "it broke")) == PartStatus("failed", 0, "it broke")


def test_a_deployment_that_scales_from_zero_is_idle():
    """Healthy with no replica means that the first request starts one."""
    healthy = deployment(DeploymentStatus.HEALTHY)
    healthy.replica_states.clear()
    assert part_status(healthy) == PartStatus("idle")


def test_a_failed_installation_is_told_with_its_remedy():
    """Ray's tracebacks go, the installer's words stay, and what to change is said."""
    told = explain(INSTALL_FAILED)
    assert told.startswith("Failed to read `flash-attn @ http://127.0.0.1:1/flash_attn.whl#sha256=00` cause: Hash mism")
    assert "FLASH_ATTN_WHEEL" in told
    assert "Traceback" not in told
    assert "utils.py" not in told


def test_our_own_errors_are_told_without_their_tracebacks():
    """What ModelLoadFailed says was written for the person who can mend it."""
    assert explain(LOAD_FAILED) == "models[].source is '/no', and there is no such file on this node"
    assert explain("no resources\n") == "no resources"


def test_of_errors_that_led_to_each_other_the_last_is_told():
    """It is the one that was raised on purpose; the first is what it came from."""
    first = "serve_app.errors.ObjectNotFound: no object\n\nThe above exception was the direct cause\n\n"
    assert explain(f"{first}Traceback (most recent call last):\n  ...\n{LOAD_FAILED}") == explain(LOAD_FAILED)
