"""Copies of the metrics for TensorBoard, Weights & Biases, MLflow and trackio.

metrics.jsonl is the record; a tracker is a convenience. So each tracker works in a thread of its own behind a bounded
queue: one that fails or hangs is switched off with one warning and never slows or ends a run.
"""

import contextlib
import importlib.util
import math
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.config import RunConfig, TrackerConfig
from cluster.configuration.redact import redact, redact_text
from cluster.record.tracker_sinks import Sink, TrackedRun, sink_makers
from cluster.record.tracker_tables import TrackerTable
from rollout.errors import ConfigError

QUEUE_STEPS = 256
"""Steps that may wait for a slow tracker before it is given up: minutes of steps, a few hundred kilobytes."""
MAX_WAITING_FOR_TABLE = 8
"""Items that may wait for a tracker that still gets tables: they hold text, which is not to pile up."""
CLOSE_DEADLINE_S = 15.0
"""What a tracker may take at the end of a run to send what it has."""


def check_trackers(config: TrackerConfig) -> None:
    """Raises ConfigError when a tracker is on whose package is not installed."""
    for name in enabled_trackers(config):
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"trackers.{name} is true, but the package {name} is not installed; "
                f"install it (pip install {name}) or set trackers.{name}=false"
            )
    if config.rollouts and not (config.wandb or config.trackio):
        raise ConfigError(
            f"trackers.rollouts is {config.rollouts}, and only Weights & Biases and trackio have tables of rollouts; "
            "set trackers.wandb=true or trackers.trackio=true, or leave it out"
        )


def enabled_trackers(config: TrackerConfig) -> tuple[str, ...]:
    """Names of the trackers that are on; each is also the name of its package."""
    return tuple(name for name in ("tensorboard", "wandb", "mlflow", "trackio") if getattr(config, name))


def start_trackers(
    config: RunConfig, run_path: Path, warn: Callable[[str], None], *, step: int | None = None
) -> "Trackers":
    """The trackers of a run, which goes on after `step` training steps; None for one that begins. `warn` is told of
    each that is switched off, once, and of what one cannot do. Raises ConfigError."""
    check_trackers(config.trackers)
    described = redact(config.model_dump(mode="json"))
    makers = sink_makers(TrackedRun.of(run_path, project=config.trackers.project, config=described, step=step))
    return Trackers({key: makers[key] for key in enabled_trackers(config.trackers)}, warn)


class Trackers:
    """Hands each step's metrics to every tracker that still works."""

    def __init__(self, makers: Mapping[str, Callable[[], Sink]], warn: Callable[[str], None]) -> None:
        self._threads = {name: _SinkThread(name, make) for name, make in makers.items()}
        self._warn = warn

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Returns at once. Values that are not finite are left out: not every tracker can show them."""
        finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        for name, thread in list(self._threads.items()):
            try:
                thread.put((step, finite))
            except queue.Full:
                self._switch_off(name, f"it has not taken the last {QUEUE_STEPS} steps")
            self._pass_on(thread)
            if thread.failure is not None:
                self._switch_off(name, thread.failure)

    def table(self, table: TrackerTable) -> None:
        """Completions of a step, for those that have tables; before the step's metrics. Returns at once: a tracker
        that is behind gets its metrics and not this."""
        for thread in self._threads.values():
            thread.put_if_not_behind(table)

    def close(self) -> None:
        """Sends what is left, for at most CLOSE_DEADLINE_S each."""
        for name, thread in list(self._threads.items()):
            finished = thread.close(CLOSE_DEADLINE_S)
            self._pass_on(thread)
            if thread.failure is not None:
                self._switch_off(name, thread.failure)
            elif not finished:
                self._switch_off(name, f"it did not finish within {CLOSE_DEADLINE_S:g} s")
        self._threads.clear()

    def _pass_on(self, thread: "_SinkThread") -> None:
        note, thread.note = thread.note, None
        if note is not None:
            self._warn(note)

    def _switch_off(self, name: str, reason: str) -> None:
        if self._threads.pop(name, None) is not None:
            self._warn(f"the tracker {name} is switched off: {reason}; metrics.jsonl has everything")


class _SinkThread:
    """Runs one sink. `failure` is set, once and for good, by the first exception; `note` by a sink that opened."""

    def __init__(self, name: str, make: Callable[[], Sink]) -> None:
        self.failure: str | None = None
        self.note: str | None = None
        self._queue: queue.Queue[tuple[int, Mapping[str, float]] | TrackerTable | None] = queue.Queue(QUEUE_STEPS)
        # A daemon: a tracker that hangs in a network call must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, args=(make,), name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def put(self, item: tuple[int, Mapping[str, float]] | None) -> None:
        if self.failure is None:
            self._queue.put_nowait(item)

    def put_if_not_behind(self, table: TrackerTable) -> None:
        if self.failure is None and self._queue.qsize() < MAX_WAITING_FOR_TABLE:
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(table)

    def close(self, deadline_s: float) -> bool:
        """Whether the sink took everything and closed in time; a sink that failed takes no time."""
        if self.failure is not None:
            return True
        try:
            self._queue.put(None, timeout=deadline_s)
        except queue.Full:
            return False
        self._thread.join(deadline_s)
        return not self._thread.is_alive()

    def _run(self, make: Callable[[], Sink]) -> None:
        try:
            sink = make()
            self.note = None if sink.note is None else redact_text(sink.note)
            while (item := self._queue.get()) is not None:
                if isinstance(item, TrackerTable):
                    sink.table(item)
                else:
                    sink.log(*item)
            sink.close()
        except Exception as error:  # noqa: BLE001 - the boundary to other people's services: reported, never raised
            self.failure = redact_text(f"{type(error).__name__}: {' '.join(str(error).split())}")
