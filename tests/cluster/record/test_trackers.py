"""Trackers get the metrics, and one that fails or hangs costs a warning and nothing else."""

import sys
import threading
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from cluster.config import TrackerConfig
from cluster.configuration.loading import load_config
from cluster.record import trackers as trackers_module
from cluster.record.run_directory import RunDirectory
from cluster.record.tracker_tables import TrackerTable
from cluster.record.trackers import Trackers, check_trackers, start_trackers
from rollout.errors import ConfigError


class Journal:
    """A sink that remembers, fails at a step, or waits."""

    note: str | None = None

    def __init__(self, fail_at: int | None = None, wait: threading.Event | None = None) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.tables: list[TrackerTable] = []
        self.closed = False
        self._fail_at, self._wait = fail_at, wait

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._wait is not None:
            self._wait.wait(30)
        if step == self._fail_at:
            raise ConnectionError("the service\nis gone")
        self.logged.append((step, dict(metrics)))

    def table(self, table: TrackerTable) -> None:
        self.tables.append(table)

    def close(self) -> None:
        self.closed = True


def test_a_missing_package_is_told_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"trackers\.wandb is true, but the package wandb is not installed; install"):
        check_trackers(TrackerConfig(wandb=True))
    check_trackers(TrackerConfig())


def test_every_step_arrives_before_close_returns_and_only_finite_values() -> None:
    journal, warnings = Journal(), list[str]()
    trackers = Trackers({"journal": lambda: journal}, warnings.append)
    trackers.log(0, {"a": 1.0, "b": float("nan")})
    trackers.log(1, {"a": 2.0})
    trackers.close()
    assert journal.logged == [(0, {"a": 1.0}), (1, {"a": 2.0})]
    assert journal.closed
    assert warnings == []


def test_a_tracker_that_fails_is_switched_off_with_one_warning() -> None:
    broken, healthy, warnings = Journal(fail_at=1), Journal(), list[str]()
    trackers = Trackers({"broken": lambda: broken, "healthy": lambda: healthy}, warnings.append)
    for step in range(3):
        trackers.log(step, {"a": 1.0})
    deadline = time.monotonic() + 5
    while not warnings and time.monotonic() < deadline:
        trackers.log(3, {"a": 1.0})
        time.sleep(0.01)
    trackers.close()
    assert warnings == [
        "the tracker broken is switched off: ConnectionError: the service is gone; metrics.jsonl has everything"
    ]
    assert [step for step, _ in broken.logged] == [0]
    assert [step for step, _ in healthy.logged][:3] == [0, 1, 2]


def test_a_tracker_that_cannot_start_is_switched_off() -> None:
    def refuse() -> Journal:
        raise PermissionError("no login")

    warnings: list[str] = []
    trackers = Trackers({"refuse": refuse}, warnings.append)
    trackers.close()
    assert warnings == ["the tracker refuse is switched off: PermissionError: no login; metrics.jsonl has everything"]


def test_a_tracker_that_hangs_holds_up_neither_step_nor_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers_module, "CLOSE_DEADLINE_S", 0.05)
    monkeypatch.setattr(trackers_module, "QUEUE_STEPS", 4)
    release, warnings = threading.Event(), list[str]()
    try:
        slow = Trackers({"slow": lambda: Journal(wait=release)}, warnings.append)
        slow.log(0, {})
        started = time.monotonic()
        slow.close()
        assert "slow is switched off: it did not finish within 0.05 s" in warnings[0]
        full = Trackers({"full": lambda: Journal(wait=release)}, warnings.append)
        for step in range(8):
            full.log(step, {})
        assert "full is switched off: it has not taken the last 4 steps" in warnings[1]
        full.close()
        assert time.monotonic() - started < 2
        assert len(warnings) == 2
    finally:
        release.set()


def test_what_a_sink_has_to_say_is_told_once() -> None:
    journal, warnings = Journal(), list[str]()
    journal.note = "it cannot take steps back"
    trackers = Trackers({"journal": lambda: journal}, warnings.append)
    for step in range(3):
        trackers.log(step, {"a": 1.0})
    trackers.close()
    assert warnings == ["it cannot take steps back"]
    assert len(journal.logged) == 3


def test_tensorboard_has_the_numbers(tmp_path: Path) -> None:
    warnings: list[str] = []
    trackers = start_trackers(load_config("tiny"), tmp_path, warnings.append)
    for step in range(3):
        trackers.log(step, {"reward/mean": step / 2})
    trackers.close()
    assert warnings == []
    assert in_tensorboard(tmp_path, "reward/mean") == [(0, 0.0), (1, 0.5), (2, 1.0)]


def in_tensorboard(run: Path, name: str) -> list[tuple[int, float]]:
    """(step, value) of a metric in all event files of a run."""
    return [(step, value) for step, value, _ in with_times(run, name)]


def with_times(run: Path, name: str) -> list[tuple[int, float, float]]:
    """(step, value, time of the event in seconds)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: list[tuple[int, float, float]] = []
    for file in sorted((run / "tensorboard").iterdir()):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0})
        events.Reload()
        if name in events.Tags()["scalars"]:
            found += [(scalar.step, scalar.value, scalar.wall_time) for scalar in events.Scalars(name)]
    return sorted(found)


class Resumable:
    """A run directory that trains steps, evaluates, and is resumed, as `shoal train` does it."""

    def __init__(self, path: Path, *overrides: str) -> None:
        self.path, self.warnings = path, list[str]()
        self._config = load_config("tiny", ["trackers.tensorboard=false", *overrides])
        self._run = RunDirectory.create(path, self._config)

    def train(self, steps: range, *, resumed_at: int | None = None, offset: float = 0.0) -> None:
        if resumed_at is not None:
            self._run.rewind(resumed_at)
        trackers = start_trackers(self._config, self.path, self.warnings.append, step=resumed_at)
        if resumed_at is None:
            self._evaluate(trackers, 0, offset)
        for step in steps:
            metrics = {"reward/mean": step + offset}
            self._run.append_metrics(step, metrics)
            trackers.log(step, metrics)
            self._evaluate(trackers, step + 1, offset)
        trackers.close()

    def _evaluate(self, trackers: Trackers, step: int, offset: float) -> None:
        self._run.append_evaluation(step, {"eval/accuracy": step + offset})
        trackers.log(step, {"eval/accuracy": step + offset})


def test_tensorboard_has_each_step_once_after_a_resume(tmp_path: Path) -> None:
    run = Resumable(tmp_path / "run", "trackers.tensorboard=true")
    run.train(range(5))
    run.train(range(3, 6), resumed_at=3, offset=0.5)
    assert in_tensorboard(run.path, "reward/mean") == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.5), (4, 4.5), (5, 5.5)]
    expected = [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0), (4, 4.5), (5, 5.5), (6, 6.5)]
    assert in_tensorboard(run.path, "eval/accuracy") == expected
    assert run.warnings == []


def test_a_step_that_is_written_anew_keeps_its_time(tmp_path: Path) -> None:
    config = load_config("tiny", ["trackers.tensorboard=true"])
    run = RunDirectory.create(tmp_path / "run", config)
    for step in range(2):
        run.append_metrics(step, {"reward/mean": 0.5, "time/ended_s": 1_000_000.0 + step})
    start_trackers(config, run.path, print, step=2).close()
    assert with_times(run.path, "reward/mean") == [(0, 0.5, 1_000_000.0), (1, 0.5, 1_000_001.0)]


class FakeWandb(types.ModuleType):
    """The service as W&B documents it: a run has an id and a history with a count that only rises; "allow" goes on
    behind its end, and `resume_from` cuts it, where that is allowed."""

    def __init__(self, *, takes_back: bool = True) -> None:
        super().__init__("wandb")
        self.histories: dict[str, dict[int, dict[str, float]]] = {}
        self.axes: list[tuple[str, str | None]] = []
        self._takes_back = takes_back

    def init(self, *, id: str = "", resume: str | None = None, resume_from: str = "", **_: object) -> "FakeRun":
        if resume_from:
            if not self._takes_back:
                raise PermissionError("rewind is\nnot enabled")
            assert resume is None
            assert id == ""
            run_id, _mark, last = resume_from.partition("?_step=")
            self.histories[run_id] = {k: v for k, v in self.histories[run_id].items() if k <= int(last)}
            return FakeRun(self, run_id)
        assert (resume == "allow") == (id in self.histories), "a new run has a new id"
        self.histories.setdefault(id, {})
        return FakeRun(self, id)


class FakeRun:
    def __init__(self, service: FakeWandb, run_id: str) -> None:
        self._service, self._history = service, service.histories[run_id]

    @property
    def step(self) -> int:
        return max(self._history, default=-1) + 1

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self._service.axes.append((name, step_metric))

    def log(self, metrics: dict[str, float], step: int | None = None) -> None:
        count = self.step if step is None else step
        if count >= self.step - 1:  # what comes for a count of before is ignored
            self._history.setdefault(count, {}).update(metrics)

    def finish(self) -> None:
        pass


def rows(service: FakeWandb, name: str) -> list[tuple[float, float]]:
    """(step, value) of the only run that the service has."""
    (history,) = service.histories.values()
    return [(row["step"], row[name]) for _, row in sorted(history.items()) if name in row]


def wandb_run(path: Path, service: FakeWandb, monkeypatch: pytest.MonkeyPatch) -> Resumable:
    monkeypatch.setitem(sys.modules, "wandb", service)
    monkeypatch.setattr(trackers_module, "check_trackers", lambda _: None)
    return Resumable(path, "trackers.wandb=true")


def test_a_resumed_run_is_the_same_run_in_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeWandb()
    run = wandb_run(tmp_path / "run", service, monkeypatch)
    run.train(range(5))
    run.train(range(5, 7), resumed_at=5)
    assert rows(service, "reward/mean") == [(step, step) for step in range(7)]
    assert rows(service, "eval/accuracy") == [(step, step) for step in range(8)]
    run.train(range(3, 6), resumed_at=3, offset=0.5)
    assert rows(service, "reward/mean") == [(0, 0), (1, 1), (2, 2), (3, 3.5), (4, 4.5), (5, 5.5)]
    assert rows(service, "eval/accuracy") == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4.5), (5, 5.5), (6, 6.5)]
    assert ("*", "step") in service.axes
    assert run.warnings == []


def test_steps_that_wandb_cannot_take_back_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeWandb(takes_back=False)
    run = wandb_run(tmp_path / "run", service, monkeypatch)
    run.train(range(5))
    run.train(range(3, 6), resumed_at=3, offset=0.5)
    trained = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (3, 3.5), (4, 4.5), (5, 5.5)]
    assert rows(service, "reward/mean") == trained, "none is lost"
    (told,) = run.warnings
    assert told.startswith("W&B cannot take back the steps from 3 on, so that it shows them twice")
    assert "(PermissionError: rewind is not enabled)" in told


def test_another_run_has_another_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeWandb()
    for name in ("a", "b"):
        wandb_run(tmp_path / name, service, monkeypatch).train(range(1))
    begun_again = wandb_run(tmp_path / "c", service, monkeypatch)
    begun_again.train(range(1))
    begun_again.train(range(1))
    assert len(service.histories) == 4


def test_a_resumed_run_is_the_same_run_in_mlflow_and_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []

    class Client:
        def get_experiment_by_name(self, name: str) -> SimpleNamespace:
            return SimpleNamespace(experiment_id="e")

        def create_run(self, experiment: str, *, run_name: str) -> SimpleNamespace:
            calls.append(("create", run_name))
            return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *values, **named: calls.append((name, *values, *named.values()))

    def init(**named: str | None) -> SimpleNamespace:
        calls.append(("init", named["name"], named["resume"]))
        # As it does where the name is taken by a run of somebody else.
        return SimpleNamespace(name=f"{named['name']}-2" if named["resume"] == "never" else named["name"])

    trackio = SimpleNamespace(
        init=init,
        log=lambda metrics, step: calls.append(("log", step)),
        finish=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(MlflowClient=Client))
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setattr(trackers_module, "check_trackers", lambda _: None)
    run = Resumable(tmp_path / "run", "trackers.mlflow=true", "trackers.trackio=true")
    run.train(range(1))
    run.train(range(1, 2), resumed_at=1)
    assert run.warnings == []
    assert [call for call in calls if call[0] == "create"] == [("create", "run")]
    assert ("update_run", "r1", "RUNNING") in calls
    assert [call for call in calls if call[0] == "init"] == [("init", "run", "never"), ("init", "run-2", "allow")]
    metrics = [call[2:] for call in calls if call[0] == "log_metric" and call[1] == "r1"]
    assert ("reward/mean", 1.0, 1) in metrics
    assert [call[1] for call in calls if call[0] == "log"] == [0, 0, 1, 1, 2]
