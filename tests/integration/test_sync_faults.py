"""Weights that are not what the learner trains with: the run stops before anything is sampled from them."""

from pathlib import Path

import pytest

from tests.integration import runs

pytestmark = pytest.mark.integration

FAULTY_VERSION = 2


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        pytest.param("AltersTensor", "arrived altered", marks=pytest.mark.slow),
        pytest.param("ForgetsTensor", "does not compute with weights version 2", marks=pytest.mark.slow),
        ("ChangesTensor", "does not compute with weights version 2"),
    ],
)
def test_run_stops_before_it_samples(fault: str, sentence: str, tmp_path: Path) -> None:
    words = [fault, "train", "tiny", *runs.SHORT, "eval.at_start=false", "learner.lr=1e-3"]
    run = runs.start(tmp_path / "run", *words, module="tests.integration.faulty_learner")
    assert run.wait() == 1, run.output()
    assert sentence in run.output()
    # Versions 0 and 1 were sampled from, in steps 0 and 1; version 2 never.
    assert len(runs.read_lines(run.path / "metrics.jsonl")) == FAULTY_VERSION
    sampled = [e["policy_version"] for e in runs.read_lines(run.path / "ledger.jsonl") if e.get("state") == "sampled"]
    assert sorted(set(sampled)) == [0, 1]
    assert runs.summary(run.path)["status"] == "failed"
    assert run.left_behind() == []
