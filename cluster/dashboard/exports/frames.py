"""`shoal.load_run(path)`: the files of a run as DataFrames, of pandas or polars."""

import importlib
import importlib.util
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from cluster.dashboard.index.rollout_queries import PlacedRow
from cluster.dashboard.records import MetricTable, RolloutRow, RunStatus
from cluster.dashboard.selection.columns import exported_columns
from cluster.dashboard.selection.completions import read_completions
from cluster.dashboard.selection.writers import arrow_type
from cluster.dashboard.views.runs import is_run
from rollout.errors import ConfigError

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

Library = Literal["pandas", "polars"]
LIBRARIES: tuple[Library, ...] = get_args(Library)
"""The first that is installed makes the frames, unless one is asked for."""
_CHUNK_ROWS = 4096
_SPAN_COLUMNS = {
    "kind": "string",
    "actor": "string",
    "start_s": "float64",
    "end_s": "float64",
    "step": "int64",
    "ids": "list<string>",
    "extra": "string",
}
_GROUP_COLUMNS = {
    "phase": "string",
    "step": "int64",
    "group_id": "string",
    "uid": "string",
    "epoch": "int64",
    "question": "string",
    "truth": "string",
    "num_rollouts": "int64",
    "num_scored": "int64",
    "num_judged": "int64",
    "num_correct": "int64",
    "pass_rate": "float64",
    "reward_mean": "float64",
    "reward_std": "float64",
    "length_mean": "float64",
}


def load_run(path: str | PathLike[str], *, frames: Library | None = None) -> "Run":
    """A run directory, live or ended, as DataFrames. `frames`: "pandas" or "polars"; None is whichever is installed,
    pandas first.

    Raises ConfigError for what is no run, and where there is no library for frames.
    """
    library = _library(frames)
    run = Path(path).expanduser()
    if not is_run(run):
        raise ConfigError(f"{run} is no run: it has none of a run's files; give the folder that `shoal train` made")
    from cluster.dashboard.index.store import RunStore

    return Run(RunStore(run), library)


class Run:
    """The files of one run. Each method reads what is new first, so that it can be asked again while the run goes on;
    `close`, or a `with` block, lets go of the index."""

    def __init__(self, store: "RunStore", library: Library) -> None:
        """Made by `load_run`."""
        self._store = store
        self._frames = library
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, status={self.status!r}, frames={self._frames!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing may be asked afterwards."""
        self._store.close()

    @property
    def path(self) -> Path:
        """Its folder."""
        return self._store.path

    @property
    def status(self) -> RunStatus:
        """live, finished, failed, interrupted or stopped."""
        return self._read().status()

    @property
    def config(self) -> dict[str, Any]:
        """config.yaml; empty where it cannot be read."""
        return self._read().config() or {}

    @property
    def summary(self) -> dict[str, Any] | None:
        """summary.json; None while the run has not ended."""
        return self._read().summary()

    def metrics(self) -> Any:
        """A row for each training step; columns `step` and the names of `docs/metrics.md`."""
        return self._metric_frame(self._read().metrics())

    def evaluations(self) -> Any:
        """A row for each evaluation; `step` is the number of training steps before it."""
        return self._metric_frame(self._read().evaluations())

    def rollouts(self, filter: str = "", *, tokens: bool = False) -> Any:
        """A row for each completion that passes the filter: the columns of the run's tables, what the index computed of
        each, and `reward.NAME` for each component. `tokens`: with the columns that have a value for each token.

        Raises FilterError.
        """
        import pyarrow

        store = self._read()
        columns = exported_columns(tokens=tokens)
        schema = _schema(columns)
        parts, components = [schema.empty_table()], []
        for part in read_completions(store, store.select(filter), tuple(columns)):
            parts.append(pyarrow.Table.from_pylist([values for _, values in part], schema=schema))
            components += [placed.row.components for placed, _ in part]
        table = pyarrow.concat_tables(parts).drop_columns(["components"])
        for name in sorted({name for each in components for name in each}):
            values = pyarrow.array([each.get(name) for each in components], pyarrow.float64())
            table = table.append_column(f"reward.{name}", values)
        return self._frame(table)

    def groups(self, filter: str = "") -> Any:
        """A row for each group that has a completion which passes the filter, counted over those that pass.

        Raises FilterError.
        """
        store = self._read()
        ids = store.select(filter)
        groups: dict[tuple[str, int, str], list[RolloutRow]] = {}
        for start in range(0, len(ids), _CHUNK_ROWS):
            for row in _rows(store.selected(ids[start : start + _CHUNK_ROWS])):
                groups.setdefault((row.phase, row.step, row.group_id), []).append(row)
        return self._table([_group(rows) for rows in groups.values()], _GROUP_COLUMNS)

    def events(self) -> Any:
        """A row for each span and instant of `events.jsonl`; `extra` is JSON as text."""
        spans = (
            {
                "kind": span.kind,
                "actor": span.actor,
                "start_s": span.start_s,
                "end_s": span.end_s,
                "step": span.step,
                "ids": list(span.ids),
                "extra": json.dumps(dict(span.extra)),
            }
            for span in self._read().all_spans()
        )
        return self._table(spans, _SPAN_COLUMNS)

    def _read(self) -> "RunStore":
        """The store with all that is in the folder now. A file that cannot be read whole is warned of, once."""
        self._store.refresh()
        for problem in self._store.problems():
            text = f"{problem.file}: {problem.message}"
            if text not in self._warned:
                self._warned.add(text)
                warnings.warn(text, stacklevel=3)
        return self._store

    def _metric_frame(self, table: MetricTable) -> Any:
        import pyarrow

        columns = {"step": pyarrow.array(table.steps, pyarrow.int64())}
        columns |= {name: pyarrow.array(values, pyarrow.float64()) for name, values in table.columns.items()}
        return self._frame(pyarrow.table(columns))

    def _table(self, records: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> Any:
        import pyarrow

        return self._frame(pyarrow.Table.from_pylist(list(records), schema=_schema(columns)))

    def _frame(self, table: Any) -> Any:
        if self._frames == "polars":
            return importlib.import_module("polars").from_arrow(table)
        return _pandas_frame(table)


def _library(asked: str | None) -> Library:
    if asked is not None and asked not in LIBRARIES:
        raise ConfigError(f"frames is {asked!r}, allowed: {', '.join(LIBRARIES)}, or None for whichever is installed")
    found: list[Library] = [
        name for name in LIBRARIES if asked in (None, name) and importlib.util.find_spec(name) is not None
    ]
    if not found:
        wanted = asked or "pandas or polars"
        raise ConfigError(
            f"a run is loaded as DataFrames, for which {wanted} is needed; pip install {asked or 'pandas'}"
        )
    return found[0]


def _pandas_frame(table: Any) -> Any:
    """Absent whole numbers and flags stay absent: pandas itself would make a float or an object of the column."""
    import pandas
    import pyarrow

    frame = table.to_pandas()
    for name, kind in (("int64", "Int64"), ("bool", "boolean")):
        type_ = pyarrow.type_for_alias(name)
        for column in (field.name for field in table.schema if field.type == type_):
            if table[column].null_count:
                frame[column] = pandas.array(table[column].to_pylist(), dtype=kind)
    return frame


def _schema(columns: Mapping[str, str]) -> Any:
    import pyarrow

    return pyarrow.schema([(name, arrow_type(kind)) for name, kind in columns.items()])


def _rows(placed: Sequence[PlacedRow]) -> Iterable[RolloutRow]:
    return (each.row for each in placed)


def _group(rows: Sequence[RolloutRow]) -> dict[str, Any]:
    first = rows[0]
    rewards = [row.reward for row in rows if row.reward is not None]
    judged = [row.correct for row in rows if row.correct is not None]
    mean = sum(rewards) / len(rewards) if rewards else None
    return {
        "phase": first.phase,
        "step": first.step,
        "group_id": first.group_id,
        "uid": first.uid,
        "epoch": first.epoch,
        "question": first.question,
        "truth": first.truth,
        "num_rollouts": len(rows),
        "num_scored": len(rewards),
        "num_judged": len(judged),
        "num_correct": sum(judged),
        "pass_rate": sum(judged) / len(judged) if judged else None,
        "reward_mean": mean,
        "reward_std": None if mean is None else math.sqrt(sum((r - mean) ** 2 for r in rewards) / len(rewards)),
        "length_mean": sum(row.length for row in rows) / len(rows),
    }
