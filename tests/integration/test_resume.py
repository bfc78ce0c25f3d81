"""A synchronous run that is stopped and resumed ends bit for bit like one that never was (CPU, fp32)."""

import signal
from pathlib import Path

import pytest

from tests.integration import runs

pytestmark = pytest.mark.integration

TERM, KILL = signal.SIGTERM, signal.SIGKILL


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([(2, TERM), (4, KILL)], id="two steps"),
        pytest.param(
            [(1, TERM), (2, KILL), (3, TERM), (4, KILL), (5, TERM), (6, KILL)],
            id="every step",
            marks=[pytest.mark.slow],
        ),
    ],
)
def test_stopped_by_term_and_kill(stops: list[tuple[int, signal.Signals]], reference: runs.Run, tmp_path: Path) -> None:
    path = tmp_path / "stopped"
    words = ("tiny", *runs.SHORT, "checkpoint.every=1")
    run = runs.start(path, *words)
    for step, number in stops:
        run.wait_for_steps(step)
        assert runs.listening(run.tag) == {"127.0.0.1"}, "nobody beyond this machine can speak to the run"
        code = runs.stop(run, number)
        assert code == (143 if number is TERM else -9), run.output()
        assert "never retrieved" not in run.output(), "errors that nobody read"
        assert len(runs.read_lines(path / "metrics.jsonl")) < 7, "it was stopped before its end"
        run = runs.start(path, "--resume", str(path))
    assert run.wait() == 0, run.output()

    stopped, whole = runs.summary(path), runs.summary(reference.path)
    assert stopped["weights_digest"] == whole["weights_digest"]
    assert stopped["policy_version"] == whole["policy_version"] == 7
    assert stopped["groups_trained"] == whole["groups_trained"]
    assert stopped["accuracy_after"] == whole["accuracy_after"]
    assert [line["step"] for line in runs.read_lines(path / "metrics.jsonl")] == list(range(7))
    consumed = [e["group_id"] for e in runs.read_lines(path / "ledger.jsonl") if e.get("state") == "consumed"]
    assert len(consumed) == len(set(consumed)) == 28
