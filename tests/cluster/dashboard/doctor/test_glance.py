"""A run in the list of runs: its reward as a curve, what its metrics tell, without an index."""

import json
import time
from pathlib import Path

import pytest

from cluster.dashboard.doctor import glance
from cluster.dashboard.doctor.glance import CURVE_POINTS, Glances, differing_keys, read_glance
from tests.cluster.dashboard.small_runs import write_run

SOON = 1e9
"""Later than any time of a monotonic clock here."""


def log_of(path: Path, rewards: list[float], **others: float) -> Path:
    path.mkdir()
    lines = [json.dumps({"step": i, "reward/mean": value, **others}) + "\n" for i, value in enumerate(rewards)]
    (path / "metrics.jsonl").write_text("".join(lines))
    return path


def test_a_curve_has_the_mean_of_the_steps_that_a_point_stands_for(tmp_path: Path) -> None:
    seen = read_glance(log_of(tmp_path / "run", [i / 100 for i in range(2 * CURVE_POINTS)]))
    assert len(seen.curve) == CURVE_POINTS
    assert seen.curve[:2] == [0.005, 0.025]  # steps 0 and 1, steps 2 and 3
    assert seen.doctor == {"error": 0, "warning": 0, "info": 0}


def test_the_doctor_tells_what_metrics_tell(tmp_path: Path) -> None:
    seen = read_glance(log_of(tmp_path / "run", [0.5, 0.6] * 15, **{"train/clip_fraction": 0.3}))
    assert seen.doctor is not None
    assert seen.doctor["error"] == 1
    failed = log_of(tmp_path / "failed", [0.5])
    (failed / "summary.json").write_text(json.dumps({"status": "failed", "error": "out of memory"}))
    found = read_glance(failed).doctor
    assert found is not None
    assert found["error"] == 1


def test_the_configuration_is_by_dotted_keys(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a"), write_run(tmp_path / "b", learner__lr=0.5)
    configs = [read_glance(run.path).config for run in (first, second)]
    assert [config["learner.lr"] for config in configs] == [pytest.approx(1e-6), 0.5]
    assert differing_keys(configs) == ["learner.lr"]
    assert differing_keys([]) == []
    assert differing_keys([{"a": 1}, {}]) == ["a"]


def test_what_is_torn_says_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_bytes(b'{"step": 0, "reward/mean": 0.5}\n\xff{\n{"step": 1, "rew')
    (run / "config.yaml").write_text("[")
    seen = read_glance(run)
    assert (list(seen.curve), dict(seen.config)) == ([0.5], {})


def test_a_log_that_is_too_long_is_left_for_when_the_run_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = log_of(tmp_path / "run", [0.5] * 30, **{"train/clip_fraction": 0.3})
    monkeypatch.setattr(glance, "MAX_LOG_BYTES", 100)
    assert (read_glance(run).doctor, list(read_glance(run).curve)) == (None, [])


def test_it_is_read_again_when_the_run_went_on_and_not_when_it_is_late(tmp_path: Path) -> None:
    run = log_of(tmp_path / "run", [0.5])
    glances = Glances()
    assert glances.of(run, until_s=time.monotonic() - 1) is None
    first = glances.of(run, until_s=SOON)
    assert first is not None
    assert glances.of(run, until_s=time.monotonic() - 1) is first, "what is known costs nothing"
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "reward/mean": 0.75}\n')
    assert glances.of(run, until_s=time.monotonic() - 1) is None
    second = glances.of(run, until_s=SOON)
    assert second is not None
    assert list(second.curve) == [0.5, 0.75]
