"""Whether the store that the service will use can be reached or made."""

from collections.abc import Callable, Mapping
from pathlib import Path

from env_setup.disk import Disk
from env_setup.verdicts import Finding

__all__ = ["store_finding"]

ENDPOINT = "AWS_ENDPOINT_URL"
KEY_PAIR = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def store_finding(environ: Mapping[str, str], disk: Disk, unanswered: Callable[[str], str | None]) -> Finding:
    """Of the bucket where S3_BUCKET is set, else of DATA_DIR. Any HTTP answer counts as reached, 403 too."""
    value = {name: environ.get(name, "").strip() for name in ("S3_BUCKET", ENDPOINT, "AWS_REGION", *KEY_PAIR)}
    unset = [name for name in KEY_PAIR if not value[name]]
    if len(unset) == 1:
        return _fail(f"{unset[0]} is not set, but the other half of the key pair is: set both or neither")
    if value["S3_BUCKET"]:
        return _bucket(value, unanswered)
    if value[ENDPOINT]:
        return _fail(f"{ENDPOINT} is {value[ENDPOINT]!r} but S3_BUCKET is not set: name the bucket, or unset it")
    folder = Path(environ.get("DATA_DIR", "").strip() or "data").absolute()
    if (problem := disk.problem(folder)) is not None:
        return _fail(f"DATA_DIR is {folder}, and {problem}: name another directory, or set S3_BUCKET")
    return Finding("store", str(folder), "a directory that can be written", "ok")


def _bucket(value: Mapping[str, str], unanswered: Callable[[str], str | None]) -> Finding:
    named = value[ENDPOINT]
    url = named or f"https://s3.{value['AWS_REGION'] or 'us-east-1'}.amazonaws.com"
    if not url.startswith(("http://", "https://")):
        return _fail(f"{ENDPOINT} is {url!r}: it begins with http:// or https://")
    if (problem := unanswered(url)) is None:
        return Finding("store", f"bucket {value['S3_BUCKET']!r}: {url} answers", "an answer", "ok")
    said = f"{ENDPOINT} is {named!r}" if named else f"{ENDPOINT} is not set, so the bucket is asked of AWS at {url}"
    return _fail(f"{said}, and there is no answer: {problem}; set it to the address of your provider")


def _fail(said: str) -> Finding:
    return Finding("store", said, "a store that can be reached", "fail")
