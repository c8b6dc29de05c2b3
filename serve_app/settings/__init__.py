"""What can be configured, as strict frozen models: an unknown or wrong key is an error that names it.

Two sources, each read once: `args` of deploy.yaml becomes `BuildArgs`, and the process environment becomes
`StoreSettings`, `WebhookSecret` and, on the node of a model's replica, `NodeSettings`. Nothing else in the package
reads the environment. Knows nothing of Ray: `app.py` turns these values into deployment options.
"""

from serve_app.settings.args import LOOPBACK_NAMES, AliasSettings, BuildArgs, LimitSettings
from serve_app.settings.environment import NodeSettings, StoreSettings, WebhookSecret
from serve_app.settings.models import ArchitectureSettings, F5Settings, ModelSettings, PreviewSettings
from serve_app.settings.scale import AutoscalingSettings, IngressSettings, JobsSettings, ScaleSettings

__all__ = [
    "LOOPBACK_NAMES",
    "AliasSettings",
    "ArchitectureSettings",
    "AutoscalingSettings",
    "BuildArgs",
    "F5Settings",
    "IngressSettings",
    "JobsSettings",
    "LimitSettings",
    "ModelSettings",
    "NodeSettings",
    "PreviewSettings",
    "ScaleSettings",
    "StoreSettings",
    "WebhookSecret",
]
