"""Readiness, from what Serve says of the deployments."""

from ray.serve.schema import DeploymentStatus, DeploymentStatusOverview, DeploymentStatusTrigger, ReplicaState

from serve_app.deployments.ingress import not_ready

LOADING = DeploymentStatus.UPDATING


def deployment(status: DeploymentStatus, message: str = "", running: int = 0) -> DeploymentStatusOverview:
    states = {ReplicaState.RUNNING: running} if running else {ReplicaState.STARTING: 1}
    return DeploymentStatusOverview(status, DeploymentStatusTrigger.UNSPECIFIED, states, message)


def test_a_running_replica_is_ready():
    """A replica runs only after its model was loaded and warmed; a later update does not take readiness away."""
    assert not_ready({"f5": deployment(DeploymentStatus.HEALTHY, running=1)}) == {}
    assert not_ready({"f5": deployment(LOADING, running=1)}) == {}


def test_what_is_loading_is_named_with_serves_word():
    """The message where Serve has one, else the status."""
    waiting = {"f5": deployment(LOADING), "preview": deployment(LOADING, "no resources")}
    assert not_ready(waiting) == {"f5": "UPDATING", "preview": "no resources"}


def test_a_deployment_that_scales_from_zero_is_ready_without_replicas():
    """Healthy with no replica means that the first request starts one."""
    healthy = deployment(DeploymentStatus.HEALTHY)
    healthy.replica_states.clear()
    assert not_ready({"f5": healthy}) == {}
