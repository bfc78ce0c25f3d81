"""Checkpoints as directories: complete or absent, and provably what was written.

    write into `.unfinished-NAME`  ->  write_manifest  ->  publish (fsync, rename)  ->  rotate

A directory under its final name has a manifest with the SHA-256 of every other file, written last. A crash at any point
leaves the previous checkpoint as it was. No torch here: the controller uses this file too.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rollout.errors import CheckpointError

MANIFEST = "manifest.json"
UNFINISHED_PREFIX = ".unfinished-"
NAME_PREFIX = "step-"
_READ_BYTES = 1 << 20


def checkpoint_name(step: int) -> str:
    """Directory name of the checkpoint after `step` training steps; names sort by step."""
    return f"{NAME_PREFIX}{step:08d}"


def unfinished_path(final: Path) -> Path:
    """Where a checkpoint is written until it is published: beside its final place, so that a rename moves it."""
    return final.with_name(UNFINISHED_PREFIX + final.name)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(directory: Path) -> None:
    """Lists every file below `directory` with size and digest. The last file to be written."""
    names = _files_below(directory)
    paths = [directory / name for name in names]
    with ThreadPoolExecutor() as pool:
        # A disk writes while the cores hash: `publish` has to wait for both, and finds the bytes on disk.
        synced = [pool.submit(_fsync, path) for path in paths]
        digests = list(pool.map(file_sha256, paths))
        for one in synced:
            one.result()
    files = {
        name: {"bytes": path.stat().st_size, "sha256": digest}
        for name, path, digest in zip(names, paths, digests, strict=True)
    }
    (directory / MANIFEST).write_text(json.dumps({"files": files}, indent=1) + "\n")


def verify_manifest(directory: Path, *, is_hashed: bool = False) -> None:
    """Checks every file against the manifest. Where the caller has just had the bytes hashed (`is_hashed`: all of them
    were read for it), names and sizes are left to check.

    Errors: `CheckpointError` naming the first file that is missing, altered or not listed.
    """
    listed = _read_manifest(directory)
    present = set(_files_below(directory))
    for name, entry in sorted(listed.items()):
        if name not in present:
            raise CheckpointError(f"checkpoint {directory} is incomplete: {name} is missing; use an older checkpoint")
        # The size first: it finds a truncated file of many gigabytes at once.
        num_bytes = (directory / name).stat().st_size
        if num_bytes != entry["bytes"]:
            raise CheckpointError(
                f"checkpoint {directory} is damaged: {name} has {num_bytes} bytes, {entry['bytes']} were written; "
                "use an older checkpoint"
            )
        if not is_hashed and file_sha256(directory / name) != entry["sha256"]:
            raise CheckpointError(
                f"checkpoint {directory} is damaged: {name} is not as it was written (its SHA-256 differs); "
                "use an older checkpoint"
            )
    # Part of a checkpoint is pickled, and reading a pickle runs code: nothing is read that was not written with it.
    for name in sorted(present - set(listed)):
        raise CheckpointError(f"checkpoint {directory} holds a file that is not part of it: {name}; remove the file")


def publish(unfinished: Path, final: Path) -> None:
    """Moves a complete directory to its final name, after its bytes are on disk.

    Errors: `CheckpointError` when it has no manifest or `final` exists.
    """
    if not (unfinished / MANIFEST).is_file():
        raise CheckpointError(f"{unfinished} has no {MANIFEST}: write one before it is published")
    if final.exists():
        raise CheckpointError(f"a checkpoint {final} exists already: remove it, or resume from it")
    for path in unfinished.rglob("*"):
        _fsync(path)
    _fsync(unfinished)
    unfinished.rename(final)
    _fsync(final.parent)


def published(directory: Path) -> list[Path]:
    """Checkpoints in `directory`, oldest first; whether they are valid is not looked at."""
    if not directory.is_dir():
        return []
    return sorted(path for path in directory.iterdir() if path.is_dir() and path.name.startswith(NAME_PREFIX))


def newest_valid(directory: Path, *, on_invalid: Callable[[Path, CheckpointError], None] | None = None) -> Path | None:
    """The newest checkpoint whose files are all as written; None when there is none.

    `on_invalid` is told of each newer one that was passed over, and why.
    """
    for path in reversed(published(directory)):
        try:
            verify_manifest(path)
        except CheckpointError as error:
            if on_invalid is not None:
                on_invalid(path, error)
        else:
            return path
    return None


def rotate(directory: Path, keep: int) -> list[Path]:
    """Removes all but the newest `keep` checkpoints and what was left unfinished; returns the checkpoints removed.

    Call it after a newer checkpoint was published, never before.
    """
    assert keep >= 1
    removed = published(directory)[:-keep]
    for path in removed:
        # Renamed first: a crash in the middle of removing leaves nothing that looks like a checkpoint.
        path.rename(unfinished_path(path))
    for path in directory.glob(UNFINISHED_PREFIX + "*"):
        shutil.rmtree(path)
    return removed


def _files_below(directory: Path) -> list[str]:
    return sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and path != directory / MANIFEST
    )


def _read_manifest(directory: Path) -> dict[str, dict[str, int | str]]:
    path = directory / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"checkpoint {directory} is incomplete: {MANIFEST} is missing; use an older checkpoint")
    try:
        files = json.loads(path.read_text())["files"]
        return {name: {"bytes": entry["bytes"], "sha256": entry["sha256"]} for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"checkpoint {directory} is damaged: {MANIFEST} cannot be read ({error}); use an older checkpoint"
        ) from error


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
