"""One tree of errors: the class says the HTTP status, the machine-readable code and whether a retry can help.

ServiceError
|-- InvalidRequest                400  a field is missing, malformed or out of range
|   |-- InvalidText               400  nothing in the text can be spoken
|   |-- InvalidVoiceName          400
|   |-- UnsupportedFormat         400
|   |-- InvalidUrl                400  a URL that is not read, or cannot be
|   |-- PayloadTooLarge           413
|   |-- InvalidAudio              422  the bytes are not audio that can be read
|   |-- InvalidPolicy             422  a job's policy that cannot be kept
|   |-- IdempotencyMismatch       422  this idempotency key came with another body before
|   |-- InvalidTranscript         422  the text is not what is said in the reference audio, or is missing
|   `-- UnusableVoice             422  this voice cannot be spoken by this model
|-- NotFound                      404
|   |-- VoiceNotFound, ModelNotFound, JobNotFound, ObjectNotFound
|   `-- JobExpired                410  the job ended, and its result is past its retention
|-- UrlRefused                    403  a signed URL is expired or was altered
|-- HostRefused                   403  called by a name, or from a page, that is not the service's
|-- Conflict                      409
|   |-- NameReserved                   the name belongs to a built-in voice
|   `-- VoiceReplaced                  the voice changed after the request was accepted
|-- Overloaded                    429  the queue is full; Retry-After says when to come again
|-- Unavailable                   503  not ready yet
|   |-- DeviceLost                     a replica's device failed for good; another replica can speak
|   `-- ReplicaLost                    a replica ended while it had this unit
|-- OutOfMemory                   503  the device has no room for this unit; it was tried again already
|-- StorageError                  503  the object store did not do what was asked
|   |-- StorageUnreachable             no answer, a time-out, a 5xx
|   |-- StorageDenied                  the store refused (403): never the same as NotFound
|   |-- StorageMisconfigured           endpoint, key, bucket, region or clock is wrong
|   `-- ObjectCorrupt                  bytes do not match their recorded sha256
|-- ExecutionTimeout              500  a job did not end within its limit
|-- PoisonJob                     500  a job whose runs end whoever runs it: it is not run again
|-- EngineError                   500  synthesis failed
|   `-- ModelLoadFailed                the model could not be loaded or warmed
|-- WebhookFailed                 502  a client's webhook did not take its message; no client sees it
`-- ConfigError                   500  deploy.yaml or the environment is wrong; ends a deployment

Every error takes one positional message: exceptions with keyword-only arguments do not survive
pickling between replicas. The message names the key, the value and the remedy.
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
    """The request cannot be met as it is; sending it again unchanged cannot help."""

    status = 400
    code = "invalid_request"
    type = "invalid_request_error"


class InvalidText(InvalidRequest):
    """Nothing in the text can be spoken."""

    code = "invalid_text"


class InvalidVoiceName(InvalidRequest):
    """The name does not match the pattern for voice names."""

    code = "invalid_voice_name"


class UnsupportedFormat(InvalidRequest):
    """The audio format asked for is not one that is served."""

    code = "unsupported_format"


class InvalidUrl(InvalidRequest):
    """The URL is not one that is read (its form, or where it leads), or nothing could be read there."""

    code = "invalid_url"


class PayloadTooLarge(InvalidRequest):
    """The body, text or file is over its limit."""

    status = 413
    code = "payload_too_large"


class InvalidAudio(InvalidRequest):
    """The uploaded bytes cannot be read as audio."""

    status = 422
    code = "invalid_audio"


class InvalidPolicy(InvalidRequest):
    """What a job is to keep to (its time limits, its webhook) is malformed, or not served here."""

    status = 422
    code = "invalid_policy"


class IdempotencyMismatch(InvalidRequest):
    """The idempotency key came with another body before: one key is one request."""

    status = 422
    code = "idempotency_mismatch"


class InvalidTranscript(InvalidRequest):
    """The text is not what is said in the reference audio, or none was sent and none can be made."""

    status = 422
    code = "invalid_transcript"


class UnusableVoice(InvalidRequest):
    """The voice exists, but the selected model cannot speak with it."""

    status = 422
    code = "unusable_voice"


class NotFound(ServiceError):
    """What was named does not exist, or not for this tenant."""

    status = 404
    code = "not_found"
    type = "invalid_request_error"


class VoiceNotFound(NotFound):
    """No voice has this name."""

    code = "voice_not_found"


class ModelNotFound(NotFound):
    """No deployed model has this name."""

    code = "model_not_found"


class JobNotFound(NotFound):
    """No job has this id."""

    code = "job_not_found"


class JobExpired(NotFound):
    """The job ended, and its result is past its retention."""

    status = 410
    code = "job_expired"


class ObjectNotFound(NotFound):
    """The store has no object at this key."""

    code = "object_not_found"


class UrlRefused(ServiceError):
    """A signed URL has expired or does not carry the signature of its path."""

    status = 403
    code = "url_refused"
    type = "invalid_request_error"


class HostRefused(ServiceError):
    """The request was sent to a name, or by a page, that is not this service's."""

    status = 403
    code = "host_refused"
    type = "invalid_request_error"


class Conflict(ServiceError):
    """The request contradicts what is stored."""

    status = 409
    code = "conflict"
    type = "invalid_request_error"


class NameReserved(Conflict):
    """The name belongs to a built-in voice."""

    code = "name_reserved"


class VoiceReplaced(Conflict):
    """The voice was replaced after the request was accepted."""

    code = "voice_replaced"


class Overloaded(ServiceError):
    """The queue is full."""

    status = 429
    code = "overloaded"
    type = "rate_limit_error"
    retry_after_s = 5


class Unavailable(ServiceError):
    """Not ready, or a part that the answer needs is gone for the moment."""

    status = 503
    code = "unavailable"
    retry_after_s = 5


class DeviceLost(Unavailable):
    """The device failed in a way that this process does not recover from: another replica can speak, this one must
    go."""

    code = "device_lost"


class ReplicaLost(Unavailable):
    """A replica ended while it had this unit, perhaps because of it. `unit_index` says which unit of the text, and
    `unit_indexes` which of them were at the replicas then, where a whole text is spoken."""

    code = "replica_lost"
    unit_index: int | None = None
    unit_indexes: frozenset[int] = frozenset()


class OutOfMemory(ServiceError):
    """A unit, or a batch of them, does not fit into the memory of the device. Not Unavailable, which is tried again at
    once wherever it arrives: the batcher has done that."""

    status = 503
    code = "out_of_memory"
    retry_after_s = 5


class StorageError(ServiceError):
    """The object store did not do what was asked."""

    status = 503
    code = "storage_error"
    retry_after_s = 5


class StorageUnreachable(StorageError):
    """No connection, no answer in time, or a server error after all retries."""

    code = "storage_unreachable"


class StorageDenied(StorageError):
    """The store answered 403 for reasons of permission. Never confused with a missing object."""

    code = "storage_denied"


class StorageMisconfigured(StorageError):
    """Endpoint, credentials, bucket, region or clock is wrong; the message names the variable to change."""

    code = "storage_misconfigured"


class ObjectCorrupt(StorageError):
    """The bytes read do not have the sha256 that was recorded when they were written."""

    code = "object_corrupt"


class ExecutionTimeout(ServiceError):
    """A run of a job took longer than it may."""

    code = "execution_timeout"


class PoisonJob(ServiceError):
    """Runs of this job do not end, or replicas end with it: another run would harm others."""

    code = "poison_job"


class EngineError(ServiceError):
    """The engine failed on this unit."""

    code = "synthesis_failed"


class ModelLoadFailed(EngineError):
    """The model could not be loaded or warmed: the replica must not start."""

    code = "model_load_failed"


class WebhookFailed(ServiceError):
    """The URL that a client gave for the end of its job did not take the message. Only recorded and logged: the request
    that asked for it was answered long ago."""

    status = 502
    code = "webhook_failed"


class ConfigError(ServiceError):
    """deploy.yaml or the environment is wrong."""

    code = "config_error"
