"""SIGKILL of the only sampler of a deterministic run: it is started again, and the run ends as if nothing had been."""

from pathlib import Path
from typing import Any

import pytest

from tests.faults import faults
from tests.faults.faults import Faults
from tests.integration import runs

pytestmark = pytest.mark.faults

RECOVERED = ["DEAD", "RESTARTING", "STALE", "HEALTHY"]
PROBES = ("recovery.probe_every_s=0.5", "recovery.probe_deadline_s=20")


@pytest.mark.parametrize(
    ("event", "groups_sampled_again"),
    [
        pytest.param("serving", 4, id="serving"),
        pytest.param("idle", 0, id="idle"),
        pytest.param("syncing", 0, id="during a weight sync"),
    ],
)
def test_run_ends_bit_for_bit_the_same(
    event: Any, groups_sampled_again: Any, undisturbed: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    run = faults.start(path, Faults.at("sampler", step=3, event=event).do("kill"), "tiny", *faults.SHORT, *PROBES)
    assert run.wait() == 0, run.output()
    struck = faults.struck(path)
    faults.assert_same_end(path, undisturbed)
    faults.assert_exactly_once(path)
    assert faults.states(path, "sampler-0") == RECOVERED
    died = faults.transitions(path, "sampler-0")[0]
    # Two intervals of probing, and what Ray itself takes to say that a process is gone.
    assert died["start_s"] - struck["time_s"] < 2 * 0.5 + 1.0
    if event == "idle":
        assert died["extra"]["reason"].startswith("probe:"), "found by a probe, not by the next work"
    second = [line for line in faults.ledger(path, "leased") if line["attempt"] == 2]
    assert len(second) == groups_sampled_again
    assert run.left_behind() == []


def test_an_engine_that_raises_is_replaced(undisturbed: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    run = faults.start(path, Faults.at("sampler", step=2, event="idle").do("raise"), "tiny", *faults.SHORT)
    assert run.wait() == 0, run.output()
    assert faults.struck(path)["action"] == "raise"
    faults.assert_same_end(path, undisturbed)
    faults.assert_exactly_once(path)
    assert faults.states(path, "sampler-0") == RECOVERED
    assert "planted by a fault test" in faults.transitions(path, "sampler-0")[0]["extra"]["reason"]
    assert run.left_behind() == []


@pytest.mark.parametrize("event", ["serving", "syncing"])
def test_without_restarts_left_the_run_ends_and_can_be_resumed(event: Any, undisturbed: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    fault = Faults.at("sampler", step=3, event=event).do("kill")
    run = faults.start(path, fault, "tiny", *faults.SHORT, "recovery.max_restarts=0")
    code = run.wait()
    struck = faults.struck(path)
    assert code == 1, run.output()
    assert (path / "summary.json").stat().st_mtime - struck["time_s"] < 60.0
    summary = runs.summary(path)
    assert summary["status"] == "failed"
    assert "sampler-0 failed" in summary["error"]
    assert "has used up its 0 restarts (recovery.max_restarts)" in run.output()
    assert run.left_behind() == []
    assert [p.name for p in (path / "checkpoints").iterdir()] == ["step-00000003"]
    faults.resume(path)
    faults.assert_same_end(path, undisturbed)
    faults.assert_exactly_once(path)
