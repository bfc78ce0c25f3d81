"""SIGKILL of the whole job at eight points of a step: nothing of it is left, and what is resumed ends the same.

The job of each point but the first is itself a resumed one, so that resuming is killed too; the last goes to the end.
"""

import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults import faults
from tests.faults.faults import Faults
from tests.integration import runs

pytestmark = pytest.mark.faults

# (point, training steps done there, step of the checkpoint that the run goes on from afterwards)
WITHIN_A_STEP = [("generated", 3, 2), ("scored", 3, 2), ("trained", 3, 2), ("before_sync", 4, 2)]
AT_ITS_END = [("after_sync", 4, 2), ("record", 4, 2), ("saving", 4, 2), ("saved", 4, 4)]
# Decided by weights and samples alone: a resume that is not exact shows in the next step.
EXACT = ("reward/mean", "train/loss", "train/grad_norm", "rollout/completion_tokens_mean")


def exact_metrics(path: Path) -> list[dict[str, float]]:
    return [{name: line[name] for name in ("step", *EXACT)} for line in runs.read_lines(path / "metrics.jsonl")]


@pytest.mark.parametrize("points", [WITHIN_A_STEP, AT_ITS_END], ids=["within a step", "at its end"])
def test_resumed_runs_go_on_and_end_bit_for_bit_the_same(
    points: Sequence[tuple[Any, int, int]], undisturbed: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    words: tuple[str, ...] = ("tiny", *faults.SHORT, "checkpoint.every=2")
    goes_on_from: list[int] = []
    for event, step, checkpoint in points:
        run = faults.start(path, Faults.at("job", step=step, event=event).do("kill"), *words)
        assert run.wait() == -signal.SIGKILL, run.output()
        assert faults.all_struck(path)[-1]["event"] == event
        assert run.left_behind() == [], "the actors of a killed job end too"
        assert not (path / "summary.json").exists()
        told = exact_metrics(path)
        assert told == exact_metrics(undisturbed)[: len(told)], f"until the kill at {event!r}"
        assert [e["step"] for e in faults.instants(path, "resumed")][-1:] == goes_on_from
        words, goes_on_from = ("--resume", str(path)), [checkpoint]

    faults.resume(path)
    faults.assert_same_end(path, undisturbed)
    faults.assert_exactly_once(path)
    assert exact_metrics(path) == exact_metrics(undisturbed)
    assert len(faults.all_struck(path)) == len(points)
    assert [e["step"] for e in faults.instants(path, "resumed")][-1:] == goes_on_from
