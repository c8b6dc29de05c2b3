"""A job as the version before this one left it in the store: its record and its marker, to the byte."""

import json
import time
from typing import TYPE_CHECKING

from uuid_utils import uuid7

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["write_older_job"]


def write_older_job(client: "S3Client", bucket: str, text: str, seed: int) -> str:
    """As `/run` of that version accepted it; its id."""
    job_id = str(uuid7())
    speech = {
        "text": text,
        "model": "preview",
        "voice": {"name": "heart", "version": "builtin", "tenant": "default"},
        "speed": 1.0,
        "seed": seed,
        "request_id": job_id,
        "tenant": "default",
        "job_id": job_id,
        "sampling": None,
        "cross_fade_s": 0.01,
    }
    record = {
        "schema_version": 1,
        "tenant": "default",
        "job_id": job_id,
        "accepted_at": time.time(),
        "dialect": "runpod",
        "speech": speech,
        "worker_output": True,
    }
    shard = job_id[-1]
    client.put_object(Bucket=bucket, Key=f"jobs/{shard}/{job_id}/request.v1.json", Body=json.dumps(record).encode())
    client.put_object(Bucket=bucket, Key=f"pending/{shard}/{job_id}.default", Body=b"")
    return job_id
