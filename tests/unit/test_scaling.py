"""How many Jobs replicas are wanted, as a function of what the controller knows; and that Ray is told to ask it."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from ray.serve._private.common import TimeStampedValue
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from serve_app import app
from serve_app.deployments.jobs import Jobs
from serve_app.deployments.scaling import QueuedAudioPolicy
from serve_app.settings import IngressSettings, JobsSettings

POLICY = QueuedAudioPolicy(target_audio_s=100)
deprecated_interval = pytest.mark.filterwarnings("ignore:The `metrics_interval_s` field:DeprecationWarning")
Report = tuple[float, float] | None


def context(*reports: Report, target: int, requests: float = 0.0) -> AutoscalingContext:
    """As the controller makes it; a running replica per report of (unended, running) seconds, None for one without.

    Each series holds an older value before the reported one.
    """
    names = [f"replica-{i}" for i in range(len(reports))]
    metrics = {
        metric: {
            name: [TimeStampedValue(1.0, 9_000.0), TimeStampedValue(2.0, report[i])]
            for name, report in zip(names, reports, strict=True)
            if report is not None
        }
        for i, metric in enumerate(("unended_audio_s", "running_audio_s"))
    }
    return AutoscalingContext(
        deployment_id=None,
        deployment_name="Jobs",
        app_name="speech",
        current_num_replicas=len(reports),
        target_num_replicas=target,
        running_replicas=names,
        total_num_requests=lambda: requests,
        total_queued_requests=lambda: requests,
        aggregated_metrics=None,
        raw_metrics=lambda: metrics,
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=50,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=2.0,
        config=AutoscalingConfig(min_replicas=0, max_replicas=50),
    )


@pytest.mark.parametrize(
    ("ctx", "wanted"),
    [
        pytest.param(context((0, 0), target=1), 0, id="idle: Ray's bounds say whether the last one stays"),
        pytest.param(context((1, 0), target=1), 1, id="anything that waits needs one"),
        pytest.param(context((100, 0), target=1), 1, id="exactly the target"),
        pytest.param(context((101, 0), target=1), 2, id="more than the target"),
        pytest.param(context((110, 60), target=1), 2, id="what runs counts as what waits"),
        pytest.param(context((5_000, 0), target=1), 50, id="a long queue"),
        pytest.param(context((250, 0), (240, 0), target=2), 3, id="all see the same queue: the longest view, no sum"),
        pytest.param(context((270, 90), (270, 90), (180, 90), target=3), 3, id="each runs jobs of its own: the sum"),
        pytest.param(context((300, 50), (350, 50), target=2), 4, id="the longest view, in which what runs is"),
        pytest.param(context((2700, 2700), target=1), 1, id="a long job alone needs no more than one"),
        pytest.param(context((3, 1), (3, 1), (3, 1), target=3), 3, id="short jobs keep their replicas"),
        pytest.param(context((2, 1), (2, 0), (2, 1), target=3), 2, id="a replica without jobs is given back"),
        pytest.param(context((0, 0), (0, 0), target=2, requests=1), 1, id="an open call keeps one"),
        pytest.param(context((1, 1), target=1, requests=300), 1, id="open calls ask for no more than one"),
        pytest.param(context(target=0), 0, id="scaled to zero, nobody calls"),
        pytest.param(context(target=0, requests=0.1), 1, id="scaled to zero, a start waits at a handle"),
        pytest.param(context(target=2, requests=1), 2, id="replicas are starting"),
        pytest.param(context(None, None, None, target=3), 3, id="nobody has reported: a restarted controller"),
        pytest.param(context(None, target=1, requests=500), 1, id="nobody has reported, calls wait"),
        pytest.param(context((0, 0), None, None, target=3), 2, id="those that have not reported are kept"),
        pytest.param(context((300, 0), None, target=2), 3, id="one that has just started says nothing yet"),
        pytest.param(context((float("nan"), 0), target=3), 3, id="a report that is no number is no report"),
        pytest.param(context((0, float("inf")), (0, 0), target=2), 1, id="and hides no other"),
    ],
)
def test_replicas_follow_the_speech_that_waits_and_runs(ctx, wanted):
    """One for each 100 s, never fewer than are running jobs, one for a call, and none is taken for want of reports."""
    assert POLICY(ctx) == (wanted, {})


@deprecated_interval
def test_jobs_are_scaled_by_the_policy_and_nothing_else_is():
    """Ray gets the class and the target of the settings; the ingress keeps Serve's own policy."""
    jobs, ingress = JobsSettings(target_audio_s=240), IngressSettings()
    asked = app.jobs_deployment(Jobs, jobs)._deployment_config.autoscaling_config.policy
    default = app._deployment(Jobs, "Ingress", ingress)._deployment_config.autoscaling_config.policy
    assert (asked.policy_function, asked.policy_kwargs) == (
        "serve_app.deployments.scaling.QueuedAudioPolicy",
        {"target_audio_s": 240},
    )
    assert default.is_default_policy_function()


@deprecated_interval
def test_the_controller_needs_nothing_of_the_service():
    """What Ray pickles is called in a process that cannot import serve_app."""
    config = app.jobs_deployment(Jobs, JobsSettings())._deployment_config.autoscaling_config
    script = (
        "import pickle, sys; sys.modules['serve_app'] = None; from types import SimpleNamespace as Ctx; "
        "policy = pickle.load(sys.stdin.buffer)(target_audio_s=600); "
        "print(policy(Ctx(total_num_requests=1, raw_metrics={}, target_num_replicas=0, running_replicas=[])))"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ran = subprocess.run(
        [sys.executable, "-c", script],
        input=config.policy.get_serialized_policy_def(),
        capture_output=True,
        env=environ,
        check=False,
    )
    assert (ran.stdout.decode().strip(), ran.returncode) == ("(1, {})", 0), ran.stderr.decode()


async def test_a_replica_reports_what_its_runner_counts():
    """Under the two names that the policy reads."""
    counted = {"queued_audio_s": 12.5, "running_audio_s": 3.0}
    replica = SimpleNamespace(_runner=SimpleNamespace(audio_waiting=lambda: counted))
    assert await Jobs.record_autoscaling_stats(replica) == counted


@pytest.mark.parametrize("target_audio_s", [0, -1])
def test_a_target_of_nothing_is_refused(target_audio_s):
    """No number of replicas would do."""
    with pytest.raises(ValueError, match="target_audio_s"):
        JobsSettings(target_audio_s=target_audio_s)
