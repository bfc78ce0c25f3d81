"""One run as the dashboard sees it: the files, and an index beside them that is made anew when it is lost.

`refresh` is called by one thread, again and again; everything else may be called from any thread at any time and
tells what the last refresh saw. Nothing here raises because of the state of the run's files: what cannot be read is a
Problem.
"""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import numpy as np

from cluster.dashboard.files.annotations import AnnotationFile
from cluster.dashboard.files.file_problems import Seen, file_problems, source_of
from cluster.dashboard.files.file_set import FileSet
from cluster.dashboard.files.liveness import run_status
from cluster.dashboard.files.rollout_reader import read_records
from cluster.dashboard.index import event_queries, ledger_queries, rollout_queries
from cluster.dashboard.index.columns import mean_of_known
from cluster.dashboard.index.filtered_table import FilteredTable
from cluster.dashboard.index.index_db import IndexDb
from cluster.dashboard.index.ingest_logs import LogIngest, clear_events, clear_ledger, insert_events, insert_ledger
from cluster.dashboard.index.rollout_folder import RolloutFolder
from cluster.dashboard.index.span_index import SpanIndex
from cluster.dashboard.records import (
    ActorStats,
    Checkpoint,
    FoundGroup,
    GroupAddress,
    GroupTablePage,
    IndexProgress,
    LedgerEntry,
    MetricTable,
    Problem,
    PromptStats,
    PromptVisit,
    RolloutPage,
    RolloutRecord,
    RolloutRow,
    RunStatus,
    Span,
)
from cluster.run_files import ROLLOUTS, Phase, log_name

T = TypeVar("T")
P = ParamSpec("P")
_MAX_PAGE_ROWS = 1000
_CACHED = ("events", "ledger", "rollouts", "ledger and rollouts")
_COMMIT_S = 0.5
"""Readers see what was indexed after this time, and the write-ahead log stays small."""


class RunStore:
    """The files of one run."""

    def __init__(self, path: Path, *, index_path: Path | None = None) -> None:
        """`index_path` None: RUN/.index/dashboard.sqlite, or the user's cache where RUN cannot be written or another
        dashboard holds it."""
        self.path = path.resolve()
        self._db = IndexDb(self.path, index_path)
        self._lock = threading.RLock()
        self._files = FileSet(self.path)
        self._logs = {
            "events": LogIngest(self.path / log_name("events"), insert_events, clear_events),
            "ledger": LogIngest(self.path / log_name("ledger"), insert_ledger, clear_ledger),
        }
        self._log_problems: dict[str, list[Problem]] = {}
        self._unread = frozenset(self._logs)  # those that were not read to their ends yet
        self._anomalies: dict[str, int] = {}
        self._file_problems: list[Problem] = []
        self._index_problem: Problem | None = None
        self._folder = RolloutFolder(self.path / ROLLOUTS, self._version_before)
        self.annotations = AnnotationFile(self.path)
        self._annotated = self.annotations.stamp()
        self._table = FilteredTable(self._db.read, self.annotations)
        self._cache: dict[str, dict[Any, Any]] = {source: {} for source in _CACHED}
        self.spans = SpanIndex(self._ask, self._once)

    def refresh(self, *, max_s: float | None = None, max_files: int | None = None) -> frozenset[str]:
        """Reads what is new; returns the SOURCES that changed. Stops after about `max_s` with the rest for the next
        call (`progress` tells), and reads no more than `max_files` of rollouts, the newest."""
        deadline_s = time.monotonic() + (max_s if max_s is not None else 1e9)
        changed = self._files.refresh()
        annotated, self._annotated = self._annotated, self.annotations.stamp()
        changed |= {"annotations"} if annotated != self._annotated else set()
        if not self.path.is_dir():  # removed: whoever follows it closes this
            return frozenset(changed)
        try:
            if self._db.is_lost():
                self._make_anew()
            changed |= self._refresh_index(deadline_s, max_files)
            self._index_problem = None
        except sqlite3.OperationalError as error:  # the disk is full, or somebody holds the file
            self._undo()
            self._index_problem = Problem(file=".index", message=f"the index cannot be written: {error}")
        except sqlite3.DatabaseError:  # damaged: made anew, which the next call begins
            self._make_anew()
        return frozenset(changed | self._judge_files())

    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with files, their lines, and the index itself."""
        logs = [problem for problems in self._log_problems.values() for problem in problems]
        index = [self._index_problem] if self._index_problem is not None else []
        lines = (*self._files.line_problems(), *logs)
        return (*self._files.problems(), *lines, *self._folder.problems, *self._file_problems, *index)

    def progress(self) -> IndexProgress:
        """How much of the run is in the index."""
        return replace(self._folder.progress, logs_read=not self._unread)

    def status(self) -> RunStatus:
        """How the run ended, or whether somebody still writes it."""
        return run_status(self.path, self.summary())

    def config(self) -> dict[str, Any] | None:
        """config.yaml; None, with a Problem, where it is missing or broken."""
        value: dict[str, Any] | None = self._files.config.value
        return value

    def config_text(self) -> str:
        """config.yaml as it stands; empty where it cannot be read."""
        return self._files.config.text

    def summary(self) -> dict[str, Any] | None:
        """None while the run has not ended."""
        value: dict[str, Any] | None = self._files.summary.value
        return value

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Those that are complete, in order of their steps."""
        return self._files.checkpoints

    def metrics(self) -> MetricTable:
        """Training steps in order."""
        return self._files.metrics.table()

    def evaluations(self) -> MetricTable:
        """Evaluations in order; the step is the number of training steps before."""
        return self._files.evaluations.table()

    def vocabulary(self) -> Sequence[str] | None:
        """Token id -> piece; None where the run has none."""
        return self._files.pieces

    def table_steps(self, phase: Phase) -> list[int]:
        """Steps whose rollouts are in the index."""
        return self._ask(rollout_queries.table_steps, phase)

    def table_stamps(self, phase: Phase) -> dict[int, tuple[int, int]]:
        """Step -> what is another when its rollouts in the index are others."""
        return self._ask(rollout_queries.table_stamps, phase)

    def step_rows(self, phase: Phase, step: int) -> list[RolloutRow]:
        """Groups in order of dispatch, samples in order; empty where there is no such step."""
        return self._ask(rollout_queries.step_rows, phase, step)

    def query(self, filter_text: str, sort: str, offset: int, limit: int) -> RolloutPage:
        """Rows `offset` to `offset + limit` (at most 1000) of the filtered, sorted table. Raises FilterError."""
        columns, places = self._table.rows(filter_text, sort)
        offset, limit = max(0, offset), max(0, min(limit, _MAX_PAGE_ROWS))
        ids = columns.row_ids(places[offset : offset + limit].astype(np.int64))
        rows = self._ask(rollout_queries.rows_by_id, ids)
        return RolloutPage(rows=rows, total=len(places), offset=offset)

    def query_groups(self, filter_text: str, sort: str, offset: int, limit: int) -> GroupTablePage:
        """Groups `offset` to `offset + limit` (at most 1000) of those of which a row passes, in the order of their
        first rows in the sorted table. Raises FilterError."""
        offset, limit = max(0, offset), max(0, min(limit, _MAX_PAGE_ROWS))
        ids, passing, total = self._table.groups(filter_text, sort, offset, limit)
        found = zip(self._ask(rollout_queries.groups_of_rows, ids), passing, strict=True)
        groups = [FoundGroup(rows=rows, num_passing=count) for rows, count in found if rows]
        return GroupTablePage(groups=groups, total=total, offset=offset)

    def means(self, filter_text: str, sort: str) -> dict[str, float | None]:
        """Of all rows that pass: means of reward, correct and length, each over those that have one."""
        columns, places = self._table.rows(filter_text, sort)
        return {name: mean_of_known(columns.column(name)[places]) for name in ("reward", "correct", "length")}

    def select(self, filter_text: str) -> list[int]:
        """Ids of all rows that pass, in order of their files, in a file in order of dispatch. Raises FilterError."""
        columns, places = self._table.rows(filter_text, "")
        return columns.row_ids(places.astype(np.int64))

    def selected(self, ids: Sequence[int]) -> list[rollout_queries.PlacedRow]:
        """The rows with these ids, each with its file and its place in it; those that are gone are left out."""
        return self._ask(rollout_queries.placed_rows, ids)

    def rollout(self, address: GroupAddress, sample_index: int) -> RolloutRecord | None:
        """One completion in full; None where there is none (any more)."""
        rows, places, name = self._ask(rollout_queries.group_rows, address)
        wanted = [index for index, row in enumerate(rows) if row.sample_index == sample_index][:1]
        if not wanted:
            return None
        found = read_records(self.path / ROLLOUTS / name, [rows[i] for i in wanted], [places[i] for i in wanted])
        return found[0] if found else None

    def placed_group(self, address: GroupAddress) -> list[RolloutRow]:
        """The rows of a group, from the index alone; empty where there is none."""
        return self._ask(rollout_queries.group_rows, address)[0]

    def group(self, address: GroupAddress) -> list[RolloutRecord]:
        """All completions of a group in full, in order of their samples; empty where there is none."""
        rows, places, name = self._ask(rollout_queries.group_rows, address)
        return read_records(self.path / ROLLOUTS / name, rows, places) if rows else []

    def neighbours(self, address: GroupAddress) -> tuple[GroupAddress | None, GroupAddress | None]:
        """The groups before and after it in order of dispatch."""
        return self._ask(rollout_queries.neighbours, address)

    def num_rollouts(self) -> int:
        """Completions in the index."""
        return self._folder.progress.rows

    def extent_s(self) -> tuple[float, float] | None:
        """(first start, last end) of the events."""
        return self._once("events", "extent", event_queries.extent)

    def actors(self) -> list[str]:
        """All that have a span, by name."""
        return self._once("events", "actors", event_queries.actors)

    def span(self, id: int) -> Span | None:
        """None where there is no such line."""
        return self._ask(event_queries.span, id)

    def all_spans(self) -> Iterator[Span]:
        """In order of their lines; no transaction is held between parts, as the caller may be a slow network."""
        last = -1
        while True:
            part = self._ask(event_queries.spans_after, last)
            if not part:
                return
            yield from part
            last = part[-1].id

    def instants(self) -> list[Span]:
        """What happened to the run and its actors, in order."""
        return self._once("events", "instants", event_queries.instants)

    def find_groups(self, ids: Sequence[str]) -> list[GroupAddress]:
        """Where the groups with these ids are; those without rollouts are left out."""
        return self._ask(rollout_queries.find_groups, ids)

    def actor_stats(self) -> list[ActorStats]:
        """Of every actor, in order of names."""
        return self._once("events", "actor_stats", event_queries.actor_stats)

    def ledger_counts(self) -> dict[str, int]:
        """State -> groups."""
        return self._once("ledger", "counts", ledger_queries.counts)

    def ledger_reasons(self) -> dict[str, int]:
        """Reason -> rejected groups."""
        return self._once("ledger", "reasons", ledger_queries.reasons)

    def ledger_events(self) -> ledger_queries.LedgerEvents:
        """Late answers and groups that were leased again."""
        return self._once("ledger", "events", ledger_queries.events)

    def ledger_letters(self) -> str:
        """p l s o c r for each group in order of its first lease."""
        return self._once("ledger", "letters", ledger_queries.letters)

    def ledger_entries(self, offset: int, limit: int) -> tuple[list[LedgerEntry], int]:
        """(entries in order of the first lease, how many there are in all)"""
        return self._ask(ledger_queries.entries, max(0, offset), max(0, limit))

    def ledger_history(self, group_id: str) -> list[dict[str, Any]]:
        """The group's journal lines."""
        return self._ask(ledger_queries.history, self.path / log_name("ledger"), group_id)

    def ledger_anomalies(self) -> dict[str, int]:
        """What breaks "each group trained on exactly once": name -> groups; 0 is good. Of when ledger and rollouts were
        last read whole, empty before: what one of them has not yet would look like a fault."""
        if self.progress().complete:
            self._anomalies = self._once("ledger and rollouts", "anomalies", ledger_queries.anomalies)
        return self._anomalies

    def prompt_stats(self, order: Literal["hardest", "easiest"], limit: int) -> tuple[list[PromptStats], int]:
        """(prompts by pass rate in training, how many there are in all); those never judged come last."""
        table = self._once("rollouts", "prompts", rollout_queries.prompt_table)
        judged = [row for row in table if row[3] is not None]
        rows = judged if order == "hardest" else judged[::-1]
        rows = (rows + [row for row in table if row[3] is None])[: max(0, limit)]
        with self._db.read() as connection:
            return [rollout_queries.prompt_stats_of(connection, row) for row in rows], len(table)

    def prompt_history(self, uid: str) -> list[PromptVisit]:
        """Every group of a prompt, in training and evaluations, by step."""
        return self._ask(rollout_queries.prompt_history, uid)

    def prompt_uids(self) -> set[str]:
        """Of the prompts that were trained on."""
        return {row[0] for row in self._once("rollouts", "prompts", rollout_queries.prompt_table)}

    def prompt_stat(self, uid: str) -> PromptStats | None:
        """None for a prompt that was not trained on."""
        return self._ask(rollout_queries.prompt_stat, uid)

    def close(self) -> None:
        """Lets go of the index; nothing may be asked afterwards."""
        self._db.close()

    def _judge_files(self) -> set[str]:
        """Looks for missing, torn and unreadable files; the sources of which that is new, or over."""
        before = self._file_problems
        seen = Seen(
            logs={"metrics": self._files.metrics, "evaluations": self._files.evaluations, **self._logs},
            steps=self.metrics().steps,
            evaluations=self.evaluations().steps,
            tables=self._folder.names,
            checkpoints=self._files.unfinished,
        )
        self._file_problems = file_problems(self.path, seen, live=self.status() == "live")
        return {source_of(problem) for problem in {*before} ^ {*self._file_problems}}

    def _refresh_index(self, deadline_s: float, max_files: int | None) -> set[str]:
        changed: set[str] = set()
        for name in self._logs:
            changed |= self._refresh_log(name, deadline_s)

        def rollouts(until_s: float) -> tuple[bool, bool]:
            return self._folder.refresh(self._db.writer, until_s, max_files), self._folder.progress.ready

        if self._in_parts("rollouts", deadline_s, rollouts):
            # A run consumes its groups before it writes their rollouts: now the ledger has them all.
            changed |= {"rollouts"} | self._refresh_log("ledger", deadline_s)
        return changed

    def _refresh_log(self, name: str, deadline_s: float) -> set[str]:
        log = self._logs[name]
        changed = self._in_parts(name, deadline_s, partial(log.refresh, self._db.writer))
        self._unread = self._unread - {name} if log.num_read is not None else self._unread | {name}
        self._log_problems[name] = log.problems(self._db.writer)
        return changed

    def _in_parts(self, source: str, deadline_s: float, step: Callable[[float], tuple[bool, bool]]) -> set[str]:
        """Runs `step` in transactions of about half a second until it is done or the time is over."""
        changed = False
        done = False
        while not done:
            self._db.writer.execute("begin immediate")
            try:
                part_changed, done = step(min(deadline_s, time.monotonic() + _COMMIT_S))
                self._db.writer.execute("commit")
            except Exception:  # a defect: left open, the transaction would be what the next refresh stumbles over
                self._undo()
                raise
            if part_changed:
                changed = True
                self._drop_caches((source,))
            if time.monotonic() > deadline_s:
                break
        return {source} if changed else set()

    def _make_anew(self) -> None:
        self._unread, self._anomalies = frozenset(self._logs), {}
        self._db.rebuild()
        self._folder.forget()
        self._table.forget_texts()
        self._drop_caches(("events", "ledger", "rollouts"))

    def _undo(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.writer.execute("rollback")
        self._folder.forget()

    def _drop_caches(self, sources: Sequence[str]) -> None:
        with self._lock:
            for source in sources:
                self._cache[source] = {}
                self._cache["ledger and rollouts"] = {}
            if "rollouts" in sources:
                self._table.forget()

    def _ask(self, ask: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **named: P.kwargs) -> T:
        with self._db.read() as connection:
            return ask(connection, *args, **named)

    def _once(self, source: str, name: str, ask: Callable[[sqlite3.Connection], T]) -> T:
        """What `ask` tells, asked again only after the source changed."""
        cache = self._cache[source]
        if name not in cache:
            cache[name] = self._ask(ask)
        found: T = cache[name]
        return found

    def _version_before(self, step: int) -> int:
        """Version of the weights that a training step starts from."""
        return step - self._files.metrics.skipped_before(step)
