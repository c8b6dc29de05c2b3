"""One tree of errors: the class says the HTTP status, the machine-readable code and whether a retry can help.

ServiceError
|-- InvalidRequest                400  the request cannot be met as it is: sent again unchanged, it fails again
|   |-- InvalidText               400  nothing in the text can be spoken
|   |-- InvalidVoiceName          400  it does not match the pattern for voice names
|   |-- InvalidUrl                400  its form or where it leads is refused, or nothing could be read there
|   |-- IdleTimeout               408  a client that was to send the next piece of a text sends nothing
|   |-- PayloadTooLarge           413  the body, text or file is over its limit
|   |-- UnsupportedFormat         422  not an audio format or sample rate that is served
|   |-- InvalidAudio              422  the bytes are not audio that can be read
|   |-- InvalidPolicy             422  a job's time limits or webhook are malformed, or not served here
|   |-- IdempotencyMismatch       422  this key came with another body before: one key is one request
|   |-- InvalidTranscript         422  not what is said in the reference audio, or none was sent and none can be made
|   `-- UnusableVoice             422  the voice exists, but this model cannot speak with it
|-- NotFound                      404  what was named does not exist, or not for this tenant
|   |-- VoiceNotFound                  no voice has this name
|   |-- ModelNotFound                  no deployed model has this name
|   |-- JobNotFound                    no job has this id
|   |-- ObjectNotFound                 the store has no object at this key
|   `-- JobExpired                410  the job ended, and its result is past its retention
|-- UrlRefused                    403  a signed URL has expired, or does not carry the signature of its path
|-- HostRefused                   403  called by a name, or from a page, that is not the service's
|-- Conflict                      409  the request contradicts what is stored
|   |-- NameReserved                   the name belongs to a built-in voice
|   `-- VoiceReplaced                  the voice changed after the request was accepted
|-- Overloaded                    429  the queue is full; Retry-After says when to come again
|-- Unavailable                   503  not ready, or a part that the answer needs is gone for the moment
|   |-- DeviceLost                     a replica's device failed for good; another replica can speak
|   `-- ReplicaLost                    a replica ended while it had this unit
|-- OutOfMemory                   503  the device has no room for this unit; it was tried again already
|-- StorageError                  503  the object store did not do what was asked
|   |-- StorageUnreachable             no answer in time, or a server error, after all retries
|   |-- StorageDenied                  refused for reasons of permission (403): never the same as NotFound
|   |-- StorageMisconfigured           endpoint, key, bucket, region or clock; the message names the variable to change
|   `-- ObjectCorrupt                  the bytes do not have the sha256 that was recorded when they were written
|-- ExecutionTimeout              500  a run of a job took longer than it may
|-- PoisonJob                     500  runs of a job do not end, or replicas end with it: another would harm others
|-- EngineError                   500  synthesis failed
|   `-- ModelLoadFailed                the model could not be loaded or warmed: the replica must not start
|-- WebhookFailed                 502  a client's webhook did not take its message; no client sees it
`-- ConfigError                   500  deploy.yaml or the environment is wrong; ends a deployment

Every error takes one positional message, which names the key, the value and the remedy: exceptions with keyword-only
arguments do not survive pickling between replicas. All are in one module: replicas of a rolling update find each
other's pickled errors by `serve_app.errors.<name>`. What the tree does not say is in the docstrings.
"""

from typing import ClassVar

__all__ = [
    "ConfigError",
    "Conflict",
    "DeviceLost",
    "EngineError",
    "ExecutionTimeout",
    "HostRefused",
    "IdempotencyMismatch",
    "IdleTimeout",
    "InvalidAudio",
    "InvalidPolicy",
    "InvalidRequest",
    "InvalidText",
    "InvalidTranscript",
    "InvalidUrl",
    "InvalidVoiceName",
    "JobExpired",
    "JobNotFound",
    "ModelLoadFailed",
    "ModelNotFound",
    "NameReserved",
    "NotFound",
    "ObjectCorrupt",
    "ObjectNotFound",
    "OutOfMemory",
    "Overloaded",
    "PayloadTooLarge",
    "PoisonJob",
    "ReplicaLost",
    "ServiceError",
    "StorageDenied",
    "StorageError",
    "StorageMisconfigured",
    "StorageUnreachable",
    "Unavailable",
    "UnsupportedFormat",
    "UnusableVoice",
    "UrlRefused",
    "VoiceNotFound",
    "VoiceReplaced",
    "WebhookFailed",
]


class ServiceError(Exception):
    """Base of all errors that a client may see. `message` is written for the person who can mend it."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"
    retry_after_s: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequest(ServiceError):
    status = 400
    code = "invalid_request"
    type = "invalid_request_error"


class InvalidText(InvalidRequest):
    code = "invalid_text"


class InvalidVoiceName(InvalidRequest):
    code = "invalid_voice_name"


class IdleTimeout(InvalidRequest):
    status = 408
    code = "idle_timeout"


class UnsupportedFormat(InvalidRequest):
    status = 422
    code = "unsupported_format"


class InvalidUrl(InvalidRequest):
    code = "invalid_url"


class PayloadTooLarge(InvalidRequest):
    status = 413
    code = "payload_too_large"


class InvalidAudio(InvalidRequest):
    status = 422
    code = "invalid_audio"


class InvalidPolicy(InvalidRequest):
    status = 422
    code = "invalid_policy"


class IdempotencyMismatch(InvalidRequest):
    status = 422
    code = "idempotency_mismatch"


class InvalidTranscript(InvalidRequest):
    status = 422
    code = "invalid_transcript"


class UnusableVoice(InvalidRequest):
    status = 422
    code = "unusable_voice"


class NotFound(ServiceError):
    status = 404
    code = "not_found"
    type = "invalid_request_error"


class VoiceNotFound(NotFound):
    code = "voice_not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class JobNotFound(NotFound):
    code = "job_not_found"


class JobExpired(NotFound):
    status = 410
    code = "job_expired"


class ObjectNotFound(NotFound):
    code = "object_not_found"


class UrlRefused(ServiceError):
    status = 403
    code = "url_refused"
    type = "invalid_request_error"


class HostRefused(ServiceError):
    status = 403
    code = "host_refused"
    type = "invalid_request_error"


class Conflict(ServiceError):
    status = 409
    code = "conflict"
    type = "invalid_request_error"


class NameReserved(Conflict):
    code = "name_reserved"


class VoiceReplaced(Conflict):
    code = "voice_replaced"


class Overloaded(ServiceError):
    status = 429
    code = "overloaded"
    type = "rate_limit_error"
    retry_after_s = 5


class Unavailable(ServiceError):
    status = 503
    code = "unavailable"
    retry_after_s = 5


class DeviceLost(Unavailable):
    """The device failed for good in this process: another replica can speak, this one must go."""

    code = "device_lost"


class ReplicaLost(Unavailable):
    """Perhaps because of this unit. `unit_index`: of the text; `unit_indexes`: all that were at the replicas then."""

    code = "replica_lost"
    unit_index: int | None = None
    unit_indexes: frozenset[int] = frozenset()


class OutOfMemory(ServiceError):
    """Not Unavailable, which is tried again at once wherever it arrives: the batcher has done that."""

    status = 503
    code = "out_of_memory"
    retry_after_s = 5


class StorageError(ServiceError):
    status = 503
    code = "storage_error"
    retry_after_s = 5


class StorageUnreachable(StorageError):
    code = "storage_unreachable"


class StorageDenied(StorageError):
    code = "storage_denied"


class StorageMisconfigured(StorageError):
    code = "storage_misconfigured"


class ObjectCorrupt(StorageError):
    code = "object_corrupt"


class ExecutionTimeout(ServiceError):
    code = "execution_timeout"


class PoisonJob(ServiceError):
    code = "poison_job"


class EngineError(ServiceError):
    code = "synthesis_failed"


class ModelLoadFailed(EngineError):
    code = "model_load_failed"


class WebhookFailed(ServiceError):
    """Only recorded and logged: the request that asked for the message was answered long ago."""

    status = 502
    code = "webhook_failed"


class ConfigError(ServiceError):
    code = "config_error"
