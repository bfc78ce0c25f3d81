"""Trackers get the metrics, and one that fails or hangs costs a warning and nothing else."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from cluster.config import TrackerConfig
from cluster.configuration.loading import load_config
from cluster.record import trackers as trackers_module
from cluster.record.trackers import Trackers, check_trackers, start_trackers
from rollout.errors import ConfigError


class Journal:
    """A sink that remembers, fails at a step, or waits."""

    def __init__(self, fail_at: int | None = None, wait: threading.Event | None = None) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.closed = False
        self._fail_at, self._wait = fail_at, wait

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._wait is not None:
            self._wait.wait(30)
        if step == self._fail_at:
            raise ConnectionError("the service\nis gone")
        self.logged.append((step, dict(metrics)))

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


def test_tensorboard_has_the_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    warnings: list[str] = []
    trackers = start_trackers(load_config("tiny"), tmp_path, warnings.append)
    for step in range(3):
        trackers.log(step, {"reward/mean": step / 2})
    trackers.close()
    assert warnings == []
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tensors = events.Tensors("reward/mean")
    assert [(tensor.step, tensor.tensor_proto.float_val[0]) for tensor in tensors] == [(0, 0.0), (1, 0.5), (2, 1.0)]
