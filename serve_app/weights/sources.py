"""What can be written for a model's files, and what is wrong with it where it cannot be meant.

    hf://owner/name@<40 hex commit>/path[#sha256=...]    a file of the model hub
    s3://bucket/key[#sha256=...]                         an object of a bucket, with the service's own credentials
    /path or ~/path[#sha256=...]                         a file on this node

The vocoder names a folder with config.yaml and its weights; a `#sha256=` is then that of the weights. Asks nobody and
reads no file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from env_setup.pins import F5_CHECKPOINT, VOCOS_CONFIG, VOCOS_WEIGHTS, HubFile
from serve_app.errors import ModelLoadFailed
from serve_app.storage.signing import is_key

__all__ = [
    "CONFIG",
    "PINNED",
    "SAFETENSORS",
    "BucketFile",
    "F5Files",
    "F5Sources",
    "LocalFile",
    "Pinned",
    "Source",
    "parse_file",
    "parse_vocoder",
]

CHECKPOINT_SUFFIX = ".safetensors"
CONFIG, SAFETENSORS = "config.yaml", "model.safetensors"
"""What is fetched of a vocoder's folder, save of the pinned one."""

SHA256 = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class F5Sources:
    """Where the files of one model come from, as written under `models[]`: `source`, `vocoder` and `vocab`.

    None: the pinned checkpoint, the pinned vocoder, and the vocabulary in the f5-tts wheel.
    """

    checkpoint: str | None = None
    vocoder: str | None = None
    vocab: str | None = None


@dataclass(frozen=True, slots=True)
class F5Files:
    """Where the files of one model lie on this node. `vocab` None: the one in the f5-tts wheel is meant.

    `sha256`: of those whose digest was checked when they came, or was said by their pin.
    """

    checkpoint: Path
    vocoder: Path  # a directory with config.yaml and model.safetensors, or the pinned pytorch_model.bin
    vocab: Path | None = None
    sha256: Mapping[Path, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Pinned:
    """What stands in for a source that is not given. Tests have pins of their own."""

    checkpoint: HubFile = F5_CHECKPOINT
    vocoder: tuple[HubFile, HubFile] = (VOCOS_CONFIG, VOCOS_WEIGHTS)

    def known(self, file: HubFile) -> HubFile:
        """`file` with the size and sha256 of the pin that names the same file. A given sha256 stays as it is."""
        for pin in (self.checkpoint, *self.vocoder):
            if (pin.repository, pin.revision, pin.path) == (file.repository, file.revision, file.path):
                return replace(file, sha256=file.sha256 or pin.sha256, size_bytes=pin.size_bytes)
        return file


PINNED = Pinned()


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file or folder of the user's: read where it lies, never written, never copied."""

    path: Path
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class BucketFile:
    """An object of any bucket that the service's credentials open."""

    bucket: str
    key: str
    sha256: str | None = None

    @property
    def name(self) -> str:
        return self.key.rsplit("/", 1)[-1]


Source = HubFile | BucketFile | LocalFile


def parse_file(field: str, text: str, pinned: Pinned = PINNED) -> Source:
    """The file that `models[].<field>` names; `source` must be safetensors. Raises ModelLoadFailed."""
    source = _parse(field, text)
    if isinstance(source, HubFile) and not source.path:
        raise _wrong(field, text, "names a repository, not a file of it: write hf://owner/name@commit/path/of/the.file")
    name = source.key if isinstance(source, BucketFile) else str(source.path)
    if field == "source" and not name.endswith(CHECKPOINT_SUFFIX):
        raise _wrong(
            field,
            text,
            f"does not end in {CHECKPOINT_SUFFIX}, and any other form of a checkpoint can run code when it is opened: "
            "load it once where you trust it, take its averaged (EMA) parameters, and save them with "
            "safetensors.torch.save_file",
        )
    return pinned.known(source) if isinstance(source, HubFile) else source


def parse_vocoder(
    text: str, pinned: Pinned = PINNED
) -> LocalFile | tuple[HubFile, HubFile] | tuple[BucketFile, BucketFile]:
    """The folder that `models[].vocoder` names: local, or its config.yaml and its weights. Raises ModelLoadFailed."""
    source = _parse("vocoder", text)
    if isinstance(source, LocalFile):
        return source
    name = source.path if isinstance(source, HubFile) else source.key
    if name.endswith((".safetensors", ".bin", ".yaml")):
        raise _wrong("vocoder", text, f"names a file: name the folder that holds {CONFIG} and {SAFETENSORS}")
    folder = f"{name}/" if name else ""
    if isinstance(source, BucketFile):
        return replace(source, key=folder + CONFIG, sha256=None), replace(source, key=folder + SAFETENSORS)
    config, weights = pinned.vocoder
    if (source.repository, source.revision, source.path) == (weights.repository, weights.revision, ""):
        return config, replace(weights, sha256=source.sha256 or weights.sha256)
    return replace(source, path=folder + CONFIG, sha256=None), replace(source, path=folder + SAFETENSORS)


def _parse(field: str, text: str) -> Source:
    """A HubFile's path may be empty still: a vocoder's repository."""
    address, mark, fragment = text.partition("#")
    sha256 = None
    if mark:
        sha256 = fragment.removeprefix("sha256=")
        if sha256 == fragment:
            raise _wrong(field, text, f"ends in {mark + fragment!r}, where only #sha256= and 64 hex digits can stand")
        if not SHA256.fullmatch(sha256):
            raise _wrong(field, text, "must have 64 digits of 0-9a-f after #sha256=: `sha256sum` prints them")
    if address.startswith("hf://"):
        return _parse_hub(field, text, address.removeprefix("hf://"), sha256)
    if address.startswith("s3://"):
        return _parse_bucket(field, text, address.removeprefix("s3://"), sha256)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", address):
        raise _wrong(
            field, text, "has a scheme that is not known: write hf://owner/name@commit/file, s3://bucket/key or /a/path"
        )
    return _parse_path(field, text, address, sha256)


def _parse_hub(field: str, text: str, rest: str, sha256: str | None) -> HubFile:
    repository, mark, behind = rest.partition("@")
    if not mark:
        raise _wrong(
            field, text, "names no revision, and what `main` is changes: pin a commit, hf://owner/name@<40 hex digits>"
        )
    if not REPOSITORY.fullmatch(repository):
        raise _wrong(field, text, f"has the repository {repository!r}: write owner/name, as on the hub's page")
    revision, _, path = behind.partition("/")
    if not COMMIT.fullmatch(revision):
        raise _wrong(
            field,
            text,
            f"has the revision {revision!r}, which is no commit: pin one by its 40 hex digits (the repository's page, "
            "History), since a branch or a tag can be moved",
        )
    if path and not _is_clean(path):
        raise _wrong(field, text, f"has the path {path!r}: no part of it may be empty or begin with a dot")
    return HubFile(repository, revision, path, sha256)


def _parse_bucket(field: str, text: str, rest: str, sha256: str | None) -> BucketFile:
    bucket, _, key = rest.partition("/")
    if not BUCKET.fullmatch(bucket):
        raise _wrong(field, text, f"has the bucket {bucket!r}, which cannot be one's name: write s3://bucket/key")
    key = key.removesuffix("/") if field == "vocoder" else key
    if not key:
        raise _wrong(field, text, "names a bucket, not what is in it: write s3://bucket/key")
    if not _is_clean(key):
        raise _wrong(field, text, f"has the key {key!r}: no part of it may be empty or begin with a dot")
    return BucketFile(bucket, key, sha256)


def _parse_path(field: str, text: str, address: str, sha256: str | None) -> LocalFile:
    try:
        path = Path(address).expanduser()
    except RuntimeError as error:
        raise _wrong(field, text, f"cannot be resolved ({error}): write an absolute path") from error
    if not path.is_absolute():
        raise _wrong(field, text, "is a relative path, and replicas run in other directories: make it absolute")
    return LocalFile(path, sha256)


def _is_clean(path: str) -> bool:
    return is_key(path) and not any(part.startswith(".") for part in path.split("/"))


def _wrong(field: str, text: str, what: str) -> ModelLoadFailed:
    return ModelLoadFailed(f"models[].{field} is {text!r}, which {what}")
