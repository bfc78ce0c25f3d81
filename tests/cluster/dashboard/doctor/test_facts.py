"""What the rules are told of a step's rollouts."""

from typing import Any

import pytest

from cluster.dashboard.doctor.facts import Conflict, digest
from cluster.dashboard.records import RolloutRow


def row(group: str, index: int, **values: Any) -> RolloutRow:
    fields: dict[str, Any] = {
        "phase": "train", "step": 3, "group_id": group, "sample_index": index, "uid": "u", "epoch": 0, "reward": 1.0,
        "components": {}, "advantage": 0.0, "correct": True, "outcome": "ok", "finish": "stop", "length": 4,
        "entropy": 0.5, "max_gap": 0.1, "k3": 1e-3, "repetition": 0.0, "lag": 0, "worker": "sampler-0",
        "answer": "42", "truth": "42", "question": "q", "preview": "p",
    }  # fmt: skip
    return RolloutRow(**(fields | values))


def test_digest_of_a_step() -> None:
    found = digest(
        3,
        [
            row("a", 0),
            row("a", 1, correct=False, k3=3e-3),
            row("a", 2, worker="sampler-1", k3=5e-3, lag=2, correct=None, repetition=0.9),
            row("b", 0, answer=None, correct=False, k3=None),
            row("b", 1, answer=None, correct=True, k3=None),
        ],
    )
    assert found.gaps == pytest.approx({"sampler-0": 2e-3, "sampler-1": 5e-3})
    assert found.lags == {"sampler-0": 0, "sampler-1": 2}
    assert found.repeating == 0.2
    assert found.num_groups == 2
    assert found.conflicts == (Conflict(group_id="a", answer="42", num_right=1, num_wrong=1),)
