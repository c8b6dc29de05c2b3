"""Jobs as a version without lists, retention and references left them."""

from serve_app.jobs import JobRef
from serve_app.storage import MemoryStore

JOB_ID = "01939f00-1234-7000-8000-00000000000a"
ACCEPTED_MS = 0x01939F001234
REQUEST = f"""{{"schema_version":1,"tenant":"default","job_id":"{JOB_ID}","accepted_at":100.0,"dialect":"runpod",
"speech":{{"text":"Hello.","model":"preview","voice":{{"name":"heart","version":"builtin","tenant":"default"}},
"speed":1.0,"seed":7,"request_id":"r1","tenant":"default","job_id":"{JOB_ID}","sampling":null,"cross_fade_s":null}},
"worker_output":true}}"""
RUN = f"""{{"schema_version":1,"tenant":"default","job_id":"{JOB_ID}","run":1,"owner":"old","started_at":101.0}}"""
OUTCOME = f"""{{"schema_version":1,"tenant":"default","job_id":"{JOB_ID}","state":"completed","run":1,
"started_at":101.0,"finished_at":102.0,"model":"preview","draft":true,"seed":7,"units":1,"audio":{{"key":"audio/ab","sha256":"ab",
"content_type":"audio/wav","size_bytes":4,"duration_s":1.5}},"error":null}}"""
FAILED = f"""{{"schema_version":1,"tenant":"default","job_id":"{JOB_ID}","state":"failed","run":3,"started_at":101.0,
"finished_at":102.0,"model":"preview","draft":false,"seed":7,"units":0,"audio":null,
"error":{{"type":"server_error","code":"synthesis_failed","message":"out of memory"}}}}"""


def put_older(
    store: MemoryStore, number: int, audio: str = "ab", state: str = "completed", at: float = 102.0
) -> JobRef:
    """One that ended at `at` (Unix seconds). The last digit of its number is its shard."""
    job_id = f"{JOB_ID[:-4]}{number:04x}"
    record = OUTCOME if state == "completed" else FAILED
    record = record.replace("audio/ab", f"audio/{audio}").replace('"ab"', f'"{audio}"').replace("102.0", f"{at}")
    for name, body in (("request", REQUEST), (state, record), ("run-0001", RUN)):
        key = f"jobs/{job_id[-1]}/{job_id}/{name}.v1.json"
        store.put(key, body.replace(JOB_ID, job_id).encode(), content_type="application/json")
    return JobRef(tenant="default", job_id=job_id)
