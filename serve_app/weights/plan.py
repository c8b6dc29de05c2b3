"""From what deploy.yaml says to paths on this node: which files a model has, and which of them must be fetched.

    F5Sources -> parsed -> local ones checked where they lie; all others get a place under WEIGHTS_DIR

    hub      <WEIGHTS_DIR>/<owner>/<name>/<commit>/<path>
    bucket   <WEIGHTS_DIR>/s3/<bucket>/<sha256, else etag>/<name>

So a place names its content, and a new commit or object never overwrites what a running replica has open.
"""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from env_setup.pins import HubFile
from env_setup.wheels import sha256_of
from serve_app.errors import ModelLoadFailed, ServiceError
from serve_app.weights.bucket import BucketRemote
from serve_app.weights.disk import is_whole
from serve_app.weights.sources import (
    CONFIG,
    SAFETENSORS,
    BucketFile,
    F5Files,
    F5Sources,
    LocalFile,
    Pinned,
    parse_file,
    parse_vocoder,
)

__all__ = ["Plan", "Planner", "Wanted"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file that must lie at `target`. `sha256` and `size_bytes` where they are known without asking the source.

    `remote`: the object as it was when its place was named for it.
    """

    source: HubFile | BucketFile
    target: Path
    sha256: str | None
    size_bytes: int | None
    remote: BucketRemote | None = None

    def is_here(self) -> bool:
        return is_whole(self.target, self.size_bytes)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a model's files will be, and those of them that are not the user's own."""

    files: F5Files
    wanted: tuple[Wanted, ...]


class Planner:
    """`remote` opens an object of a bucket; it is asked only for objects that are named without a sha256."""

    def __init__(self, root: Path, pinned: Pinned, remote: Callable[[BucketFile], BucketRemote]) -> None:
        self._root, self._pinned, self._remote = root, pinned, remote

    def plan(self, sources: F5Sources) -> Plan:
        """Raises ModelLoadFailed for what cannot be meant or is not there; fetches nothing."""
        wanted: list[Wanted] = []
        own: dict[Path, str] = {}  # sha256 of the user's own files, where it was asked for
        vocab = self._file("vocab", sources.vocab, wanted, own) if sources.vocab is not None else None
        vocoder = self._vocoder(sources.vocoder, wanted, own)
        if sources.checkpoint is None:
            checkpoint = self._of_hub(self._pinned.checkpoint, wanted)
        else:
            checkpoint = self._file("source", sources.checkpoint, wanted, own)
        known = own | {each.target: each.sha256 for each in wanted if each.sha256 is not None}
        return Plan(F5Files(checkpoint, vocoder, vocab, known), tuple(wanted))

    def _file(self, field: str, text: str, wanted: list[Wanted], own: dict[Path, str]) -> Path:
        source = parse_file(field, text, self._pinned)
        if isinstance(source, LocalFile):
            return _local_file(field, source, own)
        if isinstance(source, HubFile):
            return self._of_hub(source, wanted)
        return self._of_bucket(field, (source,), wanted) / source.name

    def _vocoder(self, text: str | None, wanted: list[Wanted], own: dict[Path, str]) -> Path:
        source = self._pinned.vocoder if text is None else parse_vocoder(text, self._pinned)
        if isinstance(source, LocalFile):
            return self._local_vocoder(source, own)
        config, weights = source
        if isinstance(config, HubFile) and isinstance(weights, HubFile):
            self._of_hub(config, wanted)
            return self._of_hub(weights, wanted).parent
        assert isinstance(config, BucketFile)
        assert isinstance(weights, BucketFile)
        return self._of_bucket("vocoder", (config, weights), wanted)

    def _of_hub(self, file: HubFile, wanted: list[Wanted]) -> Path:
        wanted.append(Wanted(file, self._root / file.key, file.sha256, file.size_bytes))
        return wanted[-1].target

    def _of_bucket(self, field: str, files: tuple[BucketFile, ...], wanted: list[Wanted]) -> Path:
        """The folder of `files`, named for the sha256 of the last, else for what the bucket says of them now."""
        found = [Wanted(file, Path(file.name), file.sha256, None) for file in files]
        known = files[-1].sha256
        if known is None:
            found = [self._described(field, file) for file in files]
            marks = [each.sha256 or (each.remote and each.remote.etag) or "" for each in found]
            known = marks[0] if len(marks) == 1 else hashlib.sha256(" ".join(marks).encode()).hexdigest()
        folder = self._root / "s3" / files[-1].bucket / re.sub(r"[^A-Za-z0-9-]", "_", known)
        wanted += [replace(each, target=folder / each.target) for each in found]
        return folder

    def _described(self, field: str, file: BucketFile) -> Wanted:
        remote = self._remote(file)
        try:
            found = remote.describe()
        except ServiceError as error:
            raise ModelLoadFailed(f"models[].{field} is {remote.label}: {error.message}") from error
        return Wanted(file, Path(file.name), found.sha256, found.size_bytes, remote)

    def _local_vocoder(self, folder: LocalFile, own: dict[Path, str]) -> Path:
        """Checks the pinned pytorch_model.bin before anything opens it: unpickling runs what the file says."""
        pinned = self._pinned.vocoder[1]
        path = folder.path
        if (path / SAFETENSORS).is_file():
            weights, sha256 = path / SAFETENSORS, folder.sha256
        else:
            weights, sha256 = path / pinned.path, pinned.sha256
        if not (path / CONFIG).is_file() or not weights.is_file():
            raise ModelLoadFailed(
                f"models[].vocoder is {str(path)!r}, which is not a directory on this node with {CONFIG} and "
                f"{SAFETENSORS} (or the {pinned.path} of {pinned.repository}): put both there"
            )
        if sha256 is not None and (found := own.setdefault(weights, sha256_of(weights))) != sha256:
            raise ModelLoadFailed(
                f"models[].vocoder: {weights} has the sha256 {found}, but only {sha256} is opened: use the file of "
                f"{pinned.repository}@{pinned.revision}, or save the weights as {SAFETENSORS}"
            )
        return path


def _local_file(field: str, file: LocalFile, own: dict[Path, str]) -> Path:
    path = str(file.path)
    if not file.path.is_file():
        raise ModelLoadFailed(f"models[].{field} is {path!r}, and there is no such file on this node: correct the path")
    if not os.access(file.path, os.R_OK):
        raise ModelLoadFailed(f"models[].{field} is {path!r}, which user id {os.geteuid()} may not read: chmod it")
    if not is_whole(file.path, None):
        raise ModelLoadFailed(
            f"models[].{field} is {path!r}, which is empty, cut short or not in its format: copy it anew"
        )
    if file.sha256 is not None and (found := own.setdefault(file.path, sha256_of(file.path))) != file.sha256:
        raise ModelLoadFailed(
            f"models[].{field} is {path!r}, which has the sha256 {found}, not {file.sha256}: correct the file or the "
            "sha256"
        )
    return file.path
