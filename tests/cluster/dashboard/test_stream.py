"""What is remembered of a live run."""

import time
from pathlib import Path

from cluster.dashboard.stream import MAX_COMPUTE_AGE_S, OpenRun


def test_what_is_dear_to_compute_is_at_most_three_seconds_old(tmp_path: Path) -> None:
    run = OpenRun(name="run", path=tmp_path, revision=1, status="live")
    results = iter((1, 2))

    def compute() -> int:
        end = time.thread_time() + 0.02  # at a thousandth of a processor: 20 s
        while time.thread_time() < end:
            pass
        return next(results)

    begun = time.monotonic()
    assert run.remember("findings", ("metrics",), compute) == 1
    assert 0 < run.memo["findings"].due_s - begun < MAX_COMPUTE_AGE_S + 0.5 < 4
    run.seen["metrics"] = 2
    assert run.remember("findings", ("metrics",), compute) == 1
    run.status = "finished"
    assert run.remember("findings", ("metrics",), compute) == 2
