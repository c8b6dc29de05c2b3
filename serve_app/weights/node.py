"""Fetches the files of models to this node: once, however many replicas start, and verified before they have a name.

    F5Sources -> plan -> missing? -> bucket's models/, else hub -> room? -> transfer -> F5Files
                                                                               `-> background: into the bucket

Blocks; a replica calls it in its constructor. Knows nothing of Ray, of torch, or of what is in the files.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from env_setup.pins import HubFile
from serve_app import logs
from serve_app.errors import ModelLoadFailed, ObjectNotFound, ServiceError
from serve_app.settings import NodeSettings
from serve_app.weights.bucket import MODELS, Bucket, BucketRemote, Keeper, KeptFile
from serve_app.weights.disk import Claim, DiskFailed, claim, disk_error, free_bytes, preflight, remove_empty
from serve_app.weights.hub import Hub
from serve_app.weights.plan import Planner, Wanted
from serve_app.weights.sources import PINNED, BucketFile, F5Files, F5Sources, Pinned
from serve_app.weights.transfer import Described, Progress, Remote, Transfer, leftovers, sweep

__all__ = ["HubFiles", "NodeWeights"]


class HubFiles(Protocol):
    """A hub: `Hub`, or a fake."""

    def file(self, file: HubFile) -> Remote:
        """One of its files; nothing is asked yet."""
        ...


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Where a file will be taken from. `bucket_is_wrong`: the bucket has it, but not as it must be."""

    wanted: Wanted
    remote: Remote
    expected: Described
    of_hub: bool
    bucket_is_wrong: bool = False


class NodeWeights:
    """The weights of this node, with `store` as the bucket where there is one (never a directory store).

    `pinned`, `hub`, `free` and `pause` are for tests.
    """

    def __init__(
        self,
        node: NodeSettings,
        store: Bucket | None,
        *,
        pinned: Pinned = PINNED,
        hub: HubFiles | None = None,
        free: Callable[[Path], int] = free_bytes,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        token = node.hub_token.get_secret_value() if node.hub_token else None
        self._root = node.weights_dir
        self._store = store
        self._keeper = Keeper(store, self._root) if store else None
        self._hub = hub or Hub(node.hub_endpoint, token)
        self._pinned, self._free, self._pause = pinned, free, pause

    def fetch(self, sources: F5Sources, progress: Progress | None = None) -> F5Files:
        """The files of one model, all of them whole and on this node's disk. Raises ModelLoadFailed.

        `progress` is called with a file's name, its bytes so far and its size. Where a file failed, what was written
        of it is gone again; those before it are whole, and stay.
        """
        plan = Planner(self._root, self._pinned, self._in_bucket).plan(sources)
        missing = [each for each in plan.wanted if not each.is_here()]
        chosen = [self._choose(each) for each in missing]
        if chosen:
            preflight(self._root, lambda: _still_needed(chosen), self._free)
        elif plan.wanted:
            logs.event("weights_present", directory=str(self._root), files=len(plan.wanted))
            _clean_up({each.target.parent for each in plan.wanted})
        transfer = Transfer(progress, self._pause)
        small_first = sorted(chosen, key=lambda each: each.expected.size_bytes)  # they fail cheaply
        brought = {each.wanted.target: self._bring(each, missing, transfer) for each in small_first}
        self._keep(plan.wanted, brought)
        return plan.files

    def wait_stored(self) -> None:
        """Until the background is done with putting files into the bucket. A replica does not wait."""
        if self._keeper:
            self._keeper.wait()

    def _choose(self, wanted: Wanted) -> _Chosen:
        """The first source that has the file, asked for its size and sha256. Raises ModelLoadFailed: none has."""
        if isinstance(wanted.source, BucketFile):
            remote = wanted.remote or self._in_bucket(wanted.source)
            try:
                return _Chosen(wanted, remote, _agreed(remote, wanted), of_hub=False)
            except ServiceError as error:
                raise ModelLoadFailed(f"the weights {remote.label} cannot be had: {error.message}") from error
        problem = None
        if self._store is not None:
            in_bucket = BucketRemote(self._store, MODELS + wanted.source.key)
            try:
                return _Chosen(wanted, in_bucket, _agreed(in_bucket, wanted), of_hub=False)
            except ObjectNotFound:
                pass
            except ServiceError as error:
                problem = error
        return self._choose_hub(wanted, problem)

    def _choose_hub(self, wanted: Wanted, problem: ServiceError | None) -> _Chosen:
        """`problem`: why it is not taken from the bucket."""
        assert isinstance(wanted.source, HubFile)
        if problem:
            logs.event("weights_bucket_failed", key=MODELS + wanted.source.key, error=problem.message)
        remote = self._hub.file(wanted.source)
        try:
            expected = _agreed(remote, wanted)
        except ServiceError as error:
            raise _both(error, problem) from error
        return _Chosen(wanted, remote, expected, of_hub=True, bucket_is_wrong=isinstance(problem, ModelLoadFailed))

    def _bring(self, chosen: _Chosen, missing: Sequence[Wanted], transfer: Transfer) -> _Chosen | None:
        """Where the file was taken from in the end; None where another process has brought it meanwhile."""
        wanted, folder = chosen.wanted, chosen.wanted.target.parent
        try:
            with claim(folder) as held:
                if wanted.is_here():
                    return None
                if held.exclusive:
                    sweep(folder, [each.target.name for each in missing if each.target.parent == folder])
                try:
                    return self._take(chosen, held, transfer)
                except Exception:
                    remove_empty(folder, self._root if self._root in (held.keep, *held.keep.parents) else held.keep)
                    raise
        except OSError as error:
            raise disk_error(error, wanted.target) from error

    def _take(self, chosen: _Chosen, held: Claim, transfer: Transfer) -> _Chosen:
        wanted, started = chosen.wanted, time.monotonic()
        try:
            transfer.fetch(chosen.remote, wanted.target, chosen.expected, exclusive=held.exclusive)
        except DiskFailed:
            raise
        except ServiceError as error:
            if chosen.of_hub or isinstance(wanted.source, BucketFile):
                raise ModelLoadFailed(error.message) from error
            chosen = self._choose_hub(wanted, error)
            try:
                transfer.fetch(chosen.remote, wanted.target, chosen.expected, exclusive=held.exclusive)
            except ServiceError as second:
                raise _both(second, error) from second
        if not wanted.is_here():  # of the right size and sha256, as far as anybody knew one
            wanted.target.unlink()
            raise ModelLoadFailed(f"{chosen.remote.label} is not a safetensors file, or is cut short: name another")
        logs.event(
            "weights_fetched",
            file=str(wanted.target),
            source=chosen.remote.label,
            bytes=chosen.expected.size_bytes,
            seconds=round(time.monotonic() - started, 1),
        )
        return chosen

    def _keep(self, wanted: Sequence[Wanted], brought: Mapping[Path, _Chosen | None]) -> None:
        """Begin to put the hub's files into the bucket, save those that have just come from there."""
        if self._keeper is None:
            return
        files: list[KeptFile] = []
        for each in wanted:
            taken = brought.get(each.target)
            if isinstance(each.source, HubFile) and (taken is None or taken.of_hub):
                files.append(KeptFile(each.source.key, each.target, replace=bool(taken and taken.bucket_is_wrong)))
        if files:
            self._keeper.keep(files)

    def _in_bucket(self, file: BucketFile) -> BucketRemote:
        if self._store is None:
            raise ModelLoadFailed(
                f"s3://{file.bucket}/{file.key} cannot be read without a bucket of the service, whose endpoint and "
                "credentials are used for it: set S3_BUCKET, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or name a local file"
            )
        store = self._store if file.bucket == self._store.bucket else self._store.in_bucket(file.bucket)
        return BucketRemote(store, file.key)


def _agreed(remote: Remote, wanted: Wanted) -> Described:
    """What the file must be, where pin and source agree on it. Raises ModelLoadFailed where they do not."""
    if wanted.remote is not None and wanted.size_bytes is not None:
        return Described(wanted.size_bytes, wanted.sha256)
    found = remote.describe()
    if wanted.size_bytes not in (None, found.size_bytes):
        raise ModelLoadFailed(
            f"{remote.label} has {found.size_bytes} bytes, but {wanted.target.name} must have {wanted.size_bytes}: the "
            "file there is another one"
        )
    if wanted.sha256 and found.sha256 and wanted.sha256 != found.sha256:
        raise ModelLoadFailed(
            f"{remote.label} has the sha256 {found.sha256}, but {wanted.target.name} must have {wanted.sha256}: "
            "correct the sha256 that is given for it, or the file there"
        )
    return Described(found.size_bytes, wanted.sha256 or found.sha256)


def _both(error: ServiceError, bucket_problem: ServiceError | None) -> ModelLoadFailed:
    if bucket_problem is None:
        return ModelLoadFailed(error.message)
    return ModelLoadFailed(f"{error.message}. Before that the bucket was asked: {bucket_problem.message}")


def _still_needed(chosen: Sequence[_Chosen]) -> int:
    """Bytes that must be written yet, in all: a part that lies there is part of its file."""
    need = 0
    for each in chosen:
        target = each.wanted.target
        written = sum(path.stat().st_size for path in leftovers(target.parent, target.name)[:1])
        need += 0 if each.wanted.is_here() else max(0, each.expected.size_bytes - written)
    return need


def _clean_up(folders: Collection[Path]) -> None:
    """Remove what killed processes have left beside whole files; where it cannot be removed, it stays."""
    for folder in folders:
        if leftovers(folder):
            with suppress(OSError), claim(folder, make=False, wait=False) as held:
                if held.exclusive:
                    sweep(folder)
