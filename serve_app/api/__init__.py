"""The HTTP layer: one module per dialect. Knows nothing of Ray, torch or boto3."""

from serve_app.api.app import create_app
from serve_app.api.services import Services

__all__ = ["Services", "create_app"]
