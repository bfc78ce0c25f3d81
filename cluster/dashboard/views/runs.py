"""Which runs there are below the folders that were given, and what is known of each without opening it.

A run's name is that of its folder, and of its parents' where two are the same. It is looked up in a dictionary: no part
of a request ever becomes a path.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.dashboard.files.config_file import read_config
from cluster.dashboard.files.liveness import MARKS, run_status, run_times
from cluster.dashboard.files.tail import open_inside
from cluster.dashboard.views.frame import RunFacts, facts_info
from cluster.run_files import CHECKPOINTS, CONFIG, ROLLOUTS, STACKS, SUMMARY, SUPERSEDED, TENSORBOARD, log_name
from rollout.errors import ConfigError

SKIPPED = frozenset({CHECKPOINTS, ROLLOUTS, SUPERSEDED, STACKS, TENSORBOARD, "node_modules"})
MAX_DEPTH = 4
MAX_FOLDERS = 20_000
"""Folders looked into in one search, so that `shoal dashboard /` answers too."""
TAIL_BYTES = 65_536
"""Longer than a line of metrics.jsonl: the last line is within it."""


def check_roots(roots: Sequence[Path]) -> None:
    """Raises ConfigError for what was given and is not there."""
    for root in roots:
        if not root.exists():
            raise ConfigError(f"there is no folder {root}; give run directories, or folders with runs in them")
        if not root.is_dir():
            raise ConfigError(f"{root} is a file; give run directories, or folders with runs in them")


def find_runs(roots: Sequence[Path]) -> dict[str, Path]:
    """Name -> folder of every run that is one of `roots` or lies below one, each once, sorted by name."""
    paths: dict[str, Path] = {}  # by real path: a link to a run is not another run
    for root in roots:
        for path in _runs_below(root):
            paths.setdefault(os.path.realpath(path), path)
    return dict(sorted(_named(list(paths.values())).items()))


def is_run(path: Path) -> bool:
    """Whether the folder has one of a run's files."""
    return any((path / mark).is_file() for mark in MARKS)


def _runs_below(root: Path) -> Iterator[Path]:
    """Breadth first, without going into a run."""
    level, looked = [root], 0
    for _ in range(MAX_DEPTH + 1):
        below: list[Path] = []
        for path in level:
            looked += 1
            if looked > MAX_FOLDERS:
                return
            if is_run(path):
                yield path
            else:
                below += _folders(path)
        level = below


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:  # no permission, or removed meanwhile: nothing to show from there
        return []
    return [path / name for name in names if name not in SKIPPED and not name.startswith(".")]


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """By the shortest tail of the path that no other run has, "~" between its parts; numbered where none is left."""
    parts = {path: [plain_name(part) for part in path.absolute().parts[1:]] for path in paths}
    tails = Counter(tuple(names[-length:]) for names in parts.values() for length in range(1, len(names) + 1))
    named: dict[str, Path] = {}
    for path, names in parts.items():
        lengths = range(1, len(names) + 1)
        length = next((length for length in lengths if tails[tuple(names[-length:])] == 1), len(names))
        name = unique = "~".join(names[-length:])
        number = 1
        while unique in named:
            number += 1
            unique = f"{name}~{number}"
        named[unique] = path
    return named


def plain_name(part: str) -> str:
    """A folder's name without what means something in an address or in a list of runs, or is no character at all."""
    return re.sub(r"[^\w.+=@ -]", "_", part.encode("utf-8", "backslashreplace").decode())


class RunInfos:
    """RunInfo of runs that nobody has opened, from the ends of their small files; read again only when these change."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[object, ...], RunFacts]] = {}

    def info(self, name: str, path: Path) -> dict[str, Any]:
        """As in `docs/dashboard-api.md`, `num_rollouts` null: counting them means opening the run."""
        facts = self.facts(path)
        return facts_info(name, facts, status=run_status(path, facts.summary))

    def facts(self, path: Path) -> RunFacts:
        """What the small files of a run say."""
        stamp = tuple(file_stamp(path / mark) for mark in (*MARKS, log_name("evaluations")))
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            known = self._known[path] = (stamp, read_facts(path))
        return known[1]


def read_facts(path: Path) -> RunFacts:
    """What the small files say; a file that is missing or torn says nothing."""
    evaluations = [
        line
        for line in (_first_line(path / log_name("evaluations")), _last_line(path / log_name("evaluations")))
        if line
    ]
    started_s, updated_s = run_times(path)
    return RunFacts(
        path=path,
        config=_yaml(path / CONFIG),
        summary=_json(path / SUMMARY),
        last_metrics=_last_line(path / log_name("metrics")) or {},
        first_evaluation=evaluations[0] if evaluations else {},
        last_evaluation=evaluations[-1] if evaluations else {},
        started_s=started_s,
        updated_s=updated_s,
        num_rollouts=None,
        num_problems=0,
    )


def file_stamp(path: Path) -> tuple[int, int] | None:
    """(time of the last change, bytes); None where there is no such file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def _first_line(path: Path) -> dict[str, Any] | None:
    return _object(_bytes(path, last=False).split(b"\n", 1)[0])


def _last_line(path: Path) -> dict[str, Any] | None:
    """The last whole line: what follows the last newline is still being written."""
    lines = _bytes(path, last=True).split(b"\n")[:-1]
    return next((record for line in reversed(lines) if (record := _object(line)) is not None), None)


def _bytes(path: Path, *, last: bool) -> bytes:
    try:
        with open_inside(path) as file:
            if last:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            data: bytes = file.read(TAIL_BYTES)
            return data
    except OSError:
        return b""


def _json(path: Path) -> dict[str, Any] | None:
    return _object(_bytes(path, last=False))


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):  # torn, or not JSON (UnicodeDecodeError is a ValueError too)
        return None
    return record if isinstance(record, dict) else None


def _yaml(path: Path) -> Mapping[str, Any] | None:
    try:
        config = read_config(_bytes(path, last=False).decode("utf-8"))
    except ValueError:  # torn, no UTF-8, no YAML
        return None
    return config if isinstance(config, dict) else None
