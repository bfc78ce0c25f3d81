"""`shoal eval` alone: of a run it says what the run's own last evaluation said, and it leaves the run as it was."""

from pathlib import Path

import pytest

from tests.integration import runs

pytestmark = [pytest.mark.integration]


def test_a_run_evaluated_alone_has_the_accuracy_that_it_ended_with(reference: runs.Run, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in reference.path.rglob("*.jsonl")}
    evaluation = runs.start(tmp_path / "eval", str(reference.path), command="eval")
    assert evaluation.wait() == 0, evaluation.output()
    said = dict(line.split() for line in evaluation.output().splitlines() if line.startswith("eval/"))
    assert float(said["eval/pass_at_1"]) == pytest.approx(runs.summary(reference.path)["accuracy_after"], abs=1e-6)
    assert "evaluating on 8 held-out questions, 2 samples each" in evaluation.output()
    assert {path: path.read_bytes() for path in reference.path.rglob("*.jsonl")} == before
    assert evaluation.left_behind() == []
