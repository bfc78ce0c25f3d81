"""The log of a run: what happened to it and its actors in order, and the stacks that were written when it hung."""

import os
import re
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cluster.dashboard.files.tail import open_inside
from cluster.dashboard.records import Span
from cluster.dashboard.views.fault_records import step_of
from cluster.run_files import STACKS
from cluster.types import Instant

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

MAX_ENTRIES, MAX_STACKS, MAX_STACK_BYTES = 5000, 500, 1 << 20
"""The newest entries and files; of a file its beginning, which is much longer than the stacks of any process."""
_STACK = re.compile(r"[\w.\-]{1,200}\.txt")
_SEVERITIES: Mapping[str, str] = {
    Instant.ERROR: "error",
    Instant.STALL: "error",
    Instant.WARNING: "warning",
    Instant.CHECKPOINT_SET_ASIDE: "warning",
    Instant.CHECKPOINT_NOT_WRITTEN: "warning",
}


def run_log(store: "RunStore") -> dict[str, Any]:
    """`/api/runs/{run}/log`."""
    instants, table = store.instants(), store.metrics()
    shown = instants[-MAX_ENTRIES:]
    return {
        "entries": [{**_entry(instant), "step": step_of(instant, table)} for instant in shown],
        "left_out": len(instants) - len(shown),
        "stacks": _stacks(store),
    }


def stack_page(store: "RunStore", name: str) -> dict[str, Any] | None:
    """`/api/runs/{run}/stacks/{name}`; None where there is no such file."""
    if _STACK.fullmatch(name) is None or not _has_folder(store):
        return None
    try:
        with open_inside(store.path / STACKS / name) as file:
            data: bytes = file.read(MAX_STACK_BYTES + 1)
    except OSError:
        return None
    text = data[:MAX_STACK_BYTES].decode("utf-8", "backslashreplace")
    return {"name": name, "text": text, "is_cut": len(data) > MAX_STACK_BYTES}


def _entry(instant: Span) -> dict[str, Any]:
    extra = instant.extra
    name = str(extra.get("name") or instant.kind)
    text = str(extra.get("text") or extra.get("reason") or "")
    if name == Instant.STATE:
        text = f"{extra.get('before', '?')} -> {extra.get('state', '?')}{f': {text}' if text else ''}"
    return {
        "time_s": instant.start_s,
        "actor": instant.actor,
        "what": name,
        "severity": _SEVERITIES.get(name, "info"),
        "text": text,
    }


def _has_folder(store: "RunStore") -> bool:
    """A link may lead out of the run."""
    folder = store.path / STACKS
    return folder.is_dir() and not folder.is_symlink()


def _stacks(store: "RunStore") -> list[dict[str, Any]]:
    """The newest files, in order of their names, which are numbered."""
    if not _has_folder(store):
        return []
    found = []
    try:
        with os.scandir(store.path / STACKS) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if _STACK.fullmatch(entry.name) and stat.S_ISREG(status.st_mode):
                    found.append({"name": entry.name, "bytes": status.st_size, "time_s": status.st_mtime})
    except OSError:
        return []  # it went away meanwhile
    return sorted(found, key=lambda each: str(each["name"]))[-MAX_STACKS:]
