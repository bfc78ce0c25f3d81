"""Whole runs of `tiny` by two learner ranks under every ZeRO stage: each learns as the others do."""

from pathlib import Path

import pytest

from tests.integration import runs

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.mark.parametrize(("ranks", "stage"), [(1, 0), (2, 0), (2, 1), (2, 2), (2, 3)])
def test_tiny_reaches_its_usual_accuracy(ranks: int, stage: int, tmp_path: Path) -> None:
    run = runs.train(tmp_path / "run", "tiny", f"learner.num_ranks={ranks}", f"learner.zero_stage={stage}")
    summary = runs.summary(run.path)
    print(f"ranks {ranks} stage {stage}: {summary['accuracy_before']:.3f} -> {summary['accuracy_after']:.3f}")
    assert summary["accuracy_after"] > summary["accuracy_before"] + 0.1
