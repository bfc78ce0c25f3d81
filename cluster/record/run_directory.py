"""The files of a run: everything that a person or a tool needs, append-only or replaced atomically.

    config.yaml                    the resolved configuration, secrets redacted
    metrics.jsonl                  a line for each training step
    evaluations.jsonl              a line for each evaluation
    events.jsonl                   spans and instants of every actor
    ledger.jsonl                   what became of every group
    rollouts/step-000000.parquet   the completions of a step
    rollouts/eval-000000.parquet   the completions of an evaluation
    checkpoints/                   written by checkpointing
    stacks/000-sampler-0.txt       what every thread of an actor was doing when the run stalled
    superseded/000/                what a resumed run took back
    summary.json                   how the run ended
    vocabulary.json                the text of each token
    run.lock                       who writes (`run_lock`)

`step` counts from 0; an evaluation's step is the number of training steps before it.
"""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from cluster.config import RunConfig
from cluster.configuration.loading import parse_config
from cluster.configuration.recipe_yaml import dump_yaml
from cluster.configuration.redact import redact
from cluster.record.append_log import (
    RunDirectoryError,
    RunWriteError,
    append_line,
    json_line,
    read_lines,
    replacing,
    sync_folder,
    write_atomically,
    write_error,
)
from cluster.record.group_table import OpenGroup, read_groups, tables_of, write_tables
from cluster.run_files import (
    CHECKPOINTS,
    CONFIG,
    LOGS,
    ROLLOUTS,
    STACKS,
    SUMMARY,
    SUPERSEDED,
    VOCABULARY,
    log_name,
    table_name,
)
from cluster.types import Event, RunSummary
from learner.types import CompletionKey, TokenValues

_EVENT_FIELDS = tuple(field.name for field in dataclasses.fields(Event))


class RunDirectory:
    """The only writer of a run's files. Every method that writes raises RunWriteError when the disk refuses."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._log_paths = {name: path / log_name(name) for name in LOGS}

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> Self:
        """A new run. Raises RunDirectoryError when something is there already."""
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise RunDirectoryError(_why_taken(path))
        except OSError as error:
            raise _not_made(path, error) from error
        try:
            (path / ROLLOUTS).mkdir(parents=True, exist_ok=True)
            (path / CHECKPOINTS).mkdir(exist_ok=True)
            run = cls(path)
            run.write_config(config)
        except OSError as error:  # RunWriteError among them
            if path.is_dir():
                cls(path).remove_if_unused()
            raise _not_made(path, error.__cause__ if isinstance(error, RunWriteError) else error) from error
        return run

    def remove_if_unused(self) -> bool:
        """Removes the directory if nothing was recorded in it, so that the next try can have its name; True if so."""
        if self.has_records():
            return False
        shutil.rmtree(self.path, ignore_errors=True)
        return True

    def has_records(self) -> bool:
        """Whether there is anything that a run made: a line of a log, rollouts, a checkpoint, a summary."""
        if any(self.log_path(name).exists() and self.log_path(name).stat().st_size for name in LOGS):
            return True
        if (self.path / SUMMARY).exists() or (self.path / SUPERSEDED).exists():
            return True
        folders = (self.path / ROLLOUTS, self.checkpoints_path)
        return any(folder.is_dir() and any(folder.iterdir()) for folder in folders)

    @classmethod
    def existing(cls, path: Path) -> Self:
        """An existing run, to be read: it may be live, so nothing in it is touched."""
        if not (path / CONFIG).is_file():
            raise RunDirectoryError(f"{path} is no run: it has no config.yaml; give the folder that `shoal train` made")
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing run, to be continued by who holds its lock: a line torn by a crash is moved to superseded/."""
        run = cls.existing(path)
        run.mend()
        return run

    def mend(self) -> None:
        """Moves the line that a crash tore, at the end of a log, to superseded/."""
        self._cut({name: self._whole_lines_bytes(name) for name in LOGS if self.log_path(name).exists()}, [])

    @property
    def checkpoints_path(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / CHECKPOINTS

    def log_path(self, name: str) -> Path:
        """File of one of LOGS."""
        return self._log_paths[name]

    def write_config(self, config: RunConfig) -> None:
        """Replaces config.yaml."""
        text = dump_yaml(redact(config.model_dump(mode="json")))
        write_atomically(self.path / CONFIG, text.encode())

    def read_config(self) -> RunConfig:
        """The run's configuration as it was written: without its secrets. Raises ConfigError."""
        path = self.path / CONFIG
        return parse_config(path.read_text(encoding="utf-8"), source=str(path))

    def write_vocabulary(self, pieces: Sequence[str]) -> None:
        """[V] the text of each token id, for whoever shows completions token by token."""
        write_atomically(self.path / VOCABULARY, json_line({"pieces": list(pieces)}).encode())

    def append_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """The line of a training step: step, then names and values; a value that is not finite becomes null."""
        append_line(self.log_path("metrics"), {"step": step, **metrics})

    def append_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """The line of an evaluation after `step` training steps."""
        append_line(self.log_path("evaluations"), {"step": step, **metrics})

    def append_event(self, event: Event) -> None:
        """A line of events.jsonl."""
        append_line(self.log_path("events"), {name: getattr(event, name) for name in _EVENT_FIELDS})

    def append_ledger(self, record: Mapping[str, Any]) -> None:
        """A change in the life of a group; a `step` in it lets `rewind` find it."""
        append_line(self.log_path("ledger"), record)

    def read_log(self, name: str) -> list[dict[str, Any]]:
        """The whole lines of one of LOGS."""
        return list(read_lines(self.log_path(name)))

    def write_rollouts(
        self,
        step: int,
        groups: Iterable[OpenGroup],
        advantages: Mapping[CompletionKey, float | None] | None = None,
        values: Mapping[CompletionKey, TokenValues] | None = None,
    ) -> Path:
        """The completions of a training step, and of the groups that were rejected since the one before; the columns
        are those of `cluster.columns`."""
        return self._write_table(table_name("train", step), tables_of(step, groups, advantages, values))

    def read_batch(self, step: int) -> list[OpenGroup]:
        """The groups that training step `step` was made of, as they were recorded: what a restarted learner trains on
        again, to the last bit. Raises RunDirectoryError."""
        path = self.path / ROLLOUTS / table_name("train", step)
        try:
            groups = [group for group in read_groups(path) if not group.rejected]
            if not groups:
                raise ValueError("it has no group that was trained on")
            return groups
        except (OSError, ValueError, KeyError) as error:
            raise RunDirectoryError(
                f"the groups of step {step} cannot be read from {path}: {type(error).__name__}: {error}; resume the "
                "run from its checkpoint"
            ) from error

    def write_eval_rollouts(self, step: int, groups: Iterable[OpenGroup]) -> Path:
        """The completions of an evaluation after `step` training steps."""
        return self._write_table(table_name("eval", step), tables_of(step, groups))

    def write_stacks(self, texts: Mapping[str, str]) -> str:
        """Actor -> what its threads were doing; returns the files' common name, for a person to look for."""
        folder = self.path / STACKS
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise write_error(folder, error) from error
        number = 1 + max((int(path.name[:3]) for path in folder.glob("[0-9][0-9][0-9]-*.txt")), default=-1)
        for actor, text in texts.items():
            write_atomically(folder / f"{number:03d}-{actor}.txt", text.encode())
        return f"{STACKS}/{number:03d}-*.txt"

    def write_summary(self, summary: RunSummary) -> None:
        """Replaces summary.json."""
        text = json.dumps(dataclasses.asdict(summary), indent=2, allow_nan=False)
        write_atomically(self.path / SUMMARY, (text + "\n").encode())

    def read_summary(self) -> RunSummary | None:
        """None while the run has not ended."""
        path = self.path / SUMMARY
        return RunSummary(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def sizes(self) -> dict[str, int]:
        """Bytes of each log now. A checkpoint keeps them, so that `rewind` takes back exactly what came later."""
        paths = {name: self.log_path(name) for name in LOGS}
        return {name: path.stat().st_size if path.exists() else 0 for name, path in paths.items()}

    def rewind(self, step: int, sizes: Mapping[str, int] | None = None) -> None:
        """Takes the run back to before training step `step`, so that it is the next one and has one line at the end.

        Logs named in `sizes` are cut there. Of the others, lines go whose `step` is `step` or later (evaluations:
        later than `step`), and lines without a step stay. What goes is moved to superseded/, not lost.
        """
        sizes = dict(sizes) if sizes is not None else {}
        tables = [
            path
            for path in sorted((self.path / ROLLOUTS).glob("*.parquet"))
            if int(path.stem.split("-")[1]) >= step + path.stem.startswith("eval-")
        ]
        if (self.path / SUMMARY).exists():
            tables.append(self.path / SUMMARY)
        self._cut(sizes, tables, before={name: step + (name == "evaluations") for name in LOGS if name not in sizes})

    def begin_again(self, config: RunConfig) -> None:
        """Takes the run back to before its first step, with nothing in its logs."""
        self.rewind(0, dict.fromkeys(LOGS, 0))
        self.write_config(config)

    def _write_table(self, name: str, tables: Iterable[Any]) -> Path:
        path = self.path / ROLLOUTS / name
        with replacing(path) as file:
            write_tables(file, tables)
        return path

    def _whole_lines_bytes(self, name: str) -> int:
        """Size of a log without a torn last line."""
        return self.log_path(name).read_bytes().rfind(b"\n") + 1

    def _cut(self, sizes: Mapping[str, int], files: Sequence[Path], before: Mapping[str, int] | None = None) -> None:
        """Moves to a new folder in superseded/: what is beyond `sizes` of a log, the lines that are not `before` a
        step, and whole files. Copies first and removes then, so that a crash between the two loses nothing."""
        parts: dict[str, tuple[bytes, bytes]] = {}
        for name in LOGS:
            path = self.log_path(name)
            data = path.read_bytes() if path.exists() else b""
            if name in sizes:
                parts[name] = (data[: sizes[name]], data[sizes[name] :])
            elif before is not None and name in before:
                parts[name] = _split_at_step(data, before[name])
        if not files and not any(gone for _, gone in parts.values()):
            return
        folder = self._new_superseded_folder()
        for name, (_, gone) in parts.items():
            if gone:
                write_atomically(folder / log_name(name), gone)
        for name, (kept, gone) in parts.items():
            if gone:
                write_atomically(self.log_path(name), kept)
        try:
            for file in files:
                file.rename(folder / file.name)
            sync_folder(folder)
        except OSError as error:
            raise write_error(folder, error) from error

    def _new_superseded_folder(self) -> Path:
        parent = self.path / SUPERSEDED
        try:
            parent.mkdir(exist_ok=True)
            folder = parent / f"{len(list(parent.iterdir())):03d}"
            folder.mkdir()
        except OSError as error:
            raise write_error(parent, error) from error
        return folder


def _not_made(path: Path, error: BaseException | None) -> RunDirectoryError:
    return RunDirectoryError(
        f"cannot make the run directory {path}: {getattr(error, 'strerror', None) or error}; make room or fix "
        "permissions there, or choose another place with --run-dir or runs_dir"
    )


def _why_taken(path: Path) -> str:
    """Why a new run cannot have this place, and what to do."""
    if not path.is_dir():
        return f"{path} is a file, where the run directory would be; choose another name"
    if not (path / CONFIG).is_file():
        return f"{path} exists, is not empty and is no run; choose another name"
    if not RunDirectory(path).has_records():
        return f"{path} is a run that never began (or is just starting); remove it, or choose another name"
    return f"{path} exists and is not empty; choose another name, or continue that run with --resume {path}"


def _split_at_step(data: bytes, step: int) -> tuple[bytes, bytes]:
    """(lines before `step` or without one, the others). A torn last line is among the others."""
    kept: list[bytes] = []
    gone: list[bytes] = []
    for line in data.splitlines(keepends=True):
        value = json.loads(line).get("step") if line.endswith(b"\n") else step
        (gone if value is not None and value >= step else kept).append(line)
    return b"".join(kept), b"".join(gone)
