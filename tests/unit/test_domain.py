"""The nouns, as they are stored and sent."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from pydantic import TypeAdapter

from serve_app.domain import BUILTIN, SpeechRequest, SpokenUnit, Unit, VoiceRef

REQUESTS = TypeAdapter(SpeechRequest)
REQUEST = SpeechRequest("Hello.", "m", VoiceRef("v", BUILTIN), 1.0, 7, "r1")


@pytest.mark.parametrize("request_", [REQUEST, replace(REQUEST, model_version="fake 1 float32 none cpu")])
def test_a_request_is_stored_with_its_model_version(request_):
    """JSON and back: what would speak it when it was accepted, or that nobody had said."""
    assert REQUESTS.validate_json(REQUESTS.dump_json(request_)) == request_


def test_a_request_of_an_older_release_is_read():
    """Records without a model version are of the same schema."""
    record = REQUESTS.dump_python(REQUEST)
    del record["model_version"]
    assert REQUESTS.validate_python(record) == REQUEST


def test_a_unit_shares_batches_unless_it_is_said():
    """Nothing but a replica's death makes a unit one that is spoken alone."""
    assert not Unit(0, "Hello.", VoiceRef("v", BUILTIN), 1.0, 7, 10, "r1").alone


def test_a_spoken_unit_crosses_processes():
    """Audio and maker arrive as they were; a log shows the maker only."""
    spoken = SpokenUnit(np.array([0.5, -0.5], np.float32), "m 1")
    arrived = pickle.loads(pickle.dumps(spoken))
    assert (arrived.audio.tolist(), arrived.made_by) == ([0.5, -0.5], "m 1")
    assert repr(spoken) == "SpokenUnit(made_by='m 1')"
