"""The files of an F5-TTS model on this node: a local path, the bucket's `models/`, or the model hub, in this order."""

from serve_app.weights.node import NodeWeights
from serve_app.weights.sources import F5Files, F5Sources

__all__ = ["F5Files", "F5Sources", "NodeWeights"]
