"""Mathematical answers scored the way a run scores them: by the child processes of a reward worker, from a thread."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from reward.config import RewardConfig, RewardFunctionConfig
from reward.types import GroupScores, RewardOutcome
from reward.worker import RewardWorker
from tests.reward.hostile_answers import CODE, HOSTILE
from tests.reward.normal_answers import RIGHT, WRONG
from tests.reward.samples import group

pytestmark = pytest.mark.integration

LIMIT_S = 5.0
"""The default. `test_limits` bounds the processor time of each, which no other program changes."""
MEMORY_MIB = 512
TRUTHS = ["5", "x+y", r"\{1, 2\}", r"2\pi", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}"]
"""Each is compared in a way of its own."""


@pytest.fixture
def worker() -> Iterator[RewardWorker]:
    config = RewardConfig(functions=(RewardFunctionConfig(function="math"),), timeout_s=LIMIT_S, children_per_worker=2)
    made = RewardWorker(config, "reward-0")
    made.start()
    yield made
    made.close()


def from_a_thread(worker: RewardWorker, groups: list[tuple[list[str], str]]) -> list[GroupScores]:
    """(completions, ground truth) of each group -> its scores. Signals, and so time-outs made of them, reach no thread
    but the main one."""
    scored: list[GroupScores] = []
    thread = threading.Thread(
        target=lambda: scored.extend(worker.score(group(texts, ground_truth=truth)) for texts, truth in groups)
    )
    thread.start()
    thread.join(120)
    assert len(scored) == len(groups)
    return scored


def peak_mib(pid: int) -> float:
    """Most memory that the process has had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def test_hostile_answers_are_not_rewarded_not_run_and_within_their_limits(worker: RewardWorker, tmp_path: Path) -> None:
    code = [text.replace("MARK", str(tmp_path / "mark")) for text in CODE]
    assert len({*HOSTILE, *code}) == len(HOSTILE) + len(code) >= 100
    before = worker._children.process_ids()
    groups = [(HOSTILE, TRUTHS[0]), *((code, truth) for truth in TRUTHS)]
    scored = from_a_thread(worker, groups)
    judged = [
        (truth, text[:40], result)
        for (texts, truth), results in zip(groups, scored, strict=True)
        for text, result in zip(texts, results.rewards, strict=True)
    ]
    assert len(judged) == len(HOSTILE) + len(TRUTHS) * len(code)
    # Judged, and not merely given up: nothing is learned from a time-out, so a wrong answer has to be wrong in time.
    assert [case for case in judged if (case[2].outcome, case[2].reward) != (RewardOutcome.OK, 0.0)] == []
    assert [case for case in judged if case[2].duration_s >= LIMIT_S] == []
    assert list(tmp_path.iterdir()) == []
    # The same children are still there, and none of them was ever large.
    assert sorted(worker._children.process_ids()) == sorted(before)
    assert max(map(peak_mib, before)) < MEMORY_MIB


def test_ordinary_answers_are_judged_right(worker: RewardWorker) -> None:
    cases = [(case, 1.0) for case in RIGHT] + [(case, 0.0) for case in WRONG]
    assert len({case for case, _ in cases}) >= 280
    scored = from_a_thread(worker, [([completion], truth) for (completion, truth), _ in cases])
    judged = [(*case, results.rewards[0].reward) for (case, _), results in zip(cases, scored, strict=True)]
    assert judged == [(*case, wanted) for case, wanted in cases]
