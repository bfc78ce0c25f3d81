"""Where a tracker's metrics go: TensorBoard, Weights & Biases, MLflow, trackio, each by its own library.

A run that is resumed goes on in the run that the service already has. Steps that were trained again count as they are
in metrics.jsonl; what a service can do about the ones that it has of before differs, and each sink says how.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from cluster.record.append_log import read_lines, write_atomically
from cluster.record.tracker_tables import COLUMNS, TrackerTable
from cluster.run_files import TENSORBOARD, TRACKERS, log_name


class Sink(Protocol):
    """One place where metrics go. Any exception switches it off."""

    note: str | None
    """What a person should know of how it was opened; None for nothing."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes the metrics of a step."""

    def table(self, table: TrackerTable) -> None:
        """Takes some of a step's completions, where the service has tables."""

    def close(self) -> None:
        """Sends what has not been sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """A run, as its trackers are told of it."""

    path: Path
    """Its directory, whose logs end where the run goes on."""
    project: str
    config: dict[str, Any]
    """Without secrets."""
    step: int | None
    """Training steps that are done when it goes on; None for one that begins."""
    num_lines: Mapping[str, int]
    """Lines of each log that are on record already: more are appended while a tracker reads them."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, path: Path, *, project: str, config: dict[str, Any], step: int | None) -> "TrackedRun":
        """The run as its directory is now."""
        files = {log: path / log_name(log) for log in ("metrics", "evaluations")}
        num_lines = {log: sum(1 for _ in read_lines(file)) for log, file in files.items()}
        return cls(path=path, project=project, config=config, step=step, num_lines=num_lines)

    @property
    def name(self) -> str:
        """For people."""
        return self.path.name

    def known_id(self, tracker: str) -> str | None:
        """The id under which a service has this run; None where it has none yet, and for a run that begins."""
        return None if self.step is None else self._ids().get(tracker)

    def keep_id(self, tracker: str, run_id: str) -> None:
        """Remembers an id for when the run is resumed."""
        with self._lock:  # each tracker has a thread
            ids = {**self._ids(), tracker: run_id}
            write_atomically(self.path / TRACKERS, (json.dumps(ids, indent=2) + "\n").encode())

    def recorded(self) -> Iterator[tuple[int, dict[str, float]]]:
        """(step, metrics) of all training steps and evaluations on record."""
        for log, number in self.num_lines.items():
            for line in islice(read_lines(self.path / log_name(log)), number):
                metrics = {name: value for name, value in line.items() if value is not None}
                yield int(metrics.pop("step")), metrics

    def _ids(self) -> dict[str, str]:
        path = self.path / TRACKERS
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def sink_makers(run: TrackedRun) -> dict[str, Callable[[], Sink]]:
    """Name of a tracker -> what opens its sink for a run."""
    return {
        "tensorboard": lambda: _TensorBoard(run),
        "wandb": lambda: _Wandb(run),
        "mlflow": lambda: _Mlflow(run),
        "trackio": lambda: _Trackio(run),
    }


class _TensorBoard:
    """A run that is resumed writes its files anew from the record: TensorBoard shows all that stands in any file."""

    note: str | None = None

    def __init__(self, run: TrackedRun) -> None:
        # TensorBoard's own writer: it needs no torch. An event has all numbers of a step; `add_scalar` writes an event
        # for each, so that two million numbers, written anew, would take five minutes in place of half of one.
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        # By name: the generated modules make their classes when they are imported, which no type checker sees.
        self._event, self._summary = getattr(event_pb2, "Event"), getattr(summary_pb2, "Summary")  # noqa: B009
        folder = run.path / TENSORBOARD
        of_before = list(folder.glob("events.out.tfevents*"))
        self._writer = EventFileWriter(str(folder))
        for step, metrics in run.recorded():
            self._add(step, metrics)
        self._writer.flush()
        for file in of_before:
            file.unlink(missing_ok=True)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._add(step, metrics)
        self._writer.flush()  # the page is looked at while the run goes on

    def table(self, table: TrackerTable) -> None: ...

    def close(self) -> None:
        self._writer.close()

    def _add(self, step: int, metrics: Mapping[str, float]) -> None:
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        # A step that is written anew keeps its time; an evaluation has none on record.
        at_s = metrics.get("time/ended_s", time.time())
        self._writer.add_event(self._event(wall_time=at_s, step=step, summary=self._summary(value=values)))


class _Wandb:
    """W&B counts what it is sent, upwards only. So the count of training step s is 2 s + 1, that of an evaluation after
    s steps 2 s, and charts are drawn over our own `step`. Where the run goes on before the end of what W&B has, W&B is
    asked to take that back; it cannot everywhere, and then shows those steps twice, which is told."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self.note: str | None = None
        known = run.known_id("wandb")
        run_id = known or uuid.uuid4().hex[:12]
        run.keep_id("wandb", run_id)
        common = {"project": run.project, "name": run.name, "dir": str(run.path), "config": run.config, "id": run_id}
        self._counts = True
        self._run = wandb.init(**common, resume="allow" if known else None)
        if known and run.step is not None and self._run.step > 2 * run.step + 1:
            self._run.finish()
            self._run = self._taken_back(wandb, common, run.step)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def _taken_back(self, wandb: Any, common: dict[str, Any], step: int) -> Any:
        rest = {name: value for name, value in common.items() if name != "id"}
        try:
            return wandb.init(**rest, resume_from=f"{common['id']}?_step={2 * step}")
        except Exception as error:  # noqa: BLE001  # other people's service; what it cannot do is told
            self._counts = False
            self.note = (
                f"W&B cannot take back the steps from {step} on, so that it shows them twice until the run is beyond "
                f"them ({type(error).__name__}: {' '.join(str(error).split())}); metrics.jsonl has those that count"
            )
            return wandb.init(**common, resume="allow")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        is_evaluation = any(name.startswith("eval/") for name in metrics)
        count = 2 * step + (not is_evaluation) if self._counts else None
        self._run.log({"step": step, **metrics}, step=count)

    def table(self, table: TrackerTable) -> None:
        import wandb

        rows = [list(row) for row in table.rows]
        # Of the same count as the step's metrics, which come next: one row of the history.
        count = 2 * table.step + 1 if self._counts else None
        # Mixed: a column may be absent in all of one table's rows and a number in the next one's.
        shown = wandb.Table(columns=list(COLUMNS), data=rows, allow_mixed_types=True)
        self._run.log({"step": table.step, "rollouts": shown}, step=count)

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    """MLflow takes a step that comes again as one more value of it, with a later time."""

    note: str | None = None

    def __init__(self, run: TrackedRun) -> None:
        import mlflow

        self._client = mlflow.MlflowClient()
        known = run.known_id("mlflow")
        if known is not None:
            self._run_id = known
            self._client.update_run(known, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(run.project)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(run.project)
        self._run_id = self._client.create_run(experiment_id, run_name=run.name).info.run_id
        run.keep_id("mlflow", self._run_id)
        self._client.log_dict(self._run_id, run.config, "config.json")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._client.log_metric(self._run_id, name, value, step=step)

    def table(self, table: TrackerTable) -> None: ...

    def close(self) -> None:
        self._client.set_terminated(self._run_id)


class _Trackio:
    """trackio knows a run by its name; a step that comes again is one more row of it."""

    note: str | None = None

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        self._module = trackio
        known = run.known_id("trackio")
        resume = "never" if known is None else "allow"
        opened = trackio.init(project=run.project, name=known or run.name, config=run.config, resume=resume)
        run.keep_id("trackio", opened.name)  # another one than was asked for, where that was taken

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._module.log(dict(metrics), step=step)

    def table(self, table: TrackerTable) -> None:
        import pandas  # trackio needs it for its tables

        frame = pandas.DataFrame(list(table.rows), columns=list(COLUMNS), dtype=object)
        self._module.log({"rollouts": self._module.Table(dataframe=frame)}, step=table.step)

    def close(self) -> None:
        self._module.finish()
