"""What a large run costs: with 20 000 rollouts that everything is right, with a million that it is fast enough."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from cluster.dashboard.store import RunStore
from tests.cluster.dashboard.million_run import write_run

T = TypeVar("T")
INDEX_S, STEP_MS, FILTER_MS, ROLLOUT_MS, RSS_MB = 120, 200, 500, 200, 300
QUERIES = (
    ("", "-max_gap"),
    ("reward<1 & gap>0.05", "-max_gap"),
    ('text~"Xylophone Zebra"', ""),
    ("therefore", "-max_gap"),
    ("e", "-entropy"),
    ("text!~therefore & reward=1", "reward"),
    ('text~"the answer is" | correct', "-step"),
    ("question~7", "question"),
    ("answer~4", "answer"),
    ("uid~00 & !correct", "uid"),
    ("pass_rate=0", "-step"),
    ("reward.math=1", "worker"),
    ("!(zzzz | lag>0)", "-length"),
)


def timed(label: str, ask: Callable[[], T]) -> tuple[T, float]:
    started_s = time.perf_counter()
    result = ask()
    milliseconds = (time.perf_counter() - started_s) * 1000
    print(f"{label:45} {milliseconds:8.1f} ms")
    return result, milliseconds


def memory_mb() -> float:
    """Peak of this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure(path: Path, num_rollouts: int) -> dict[str, float]:
    """Indexes and asks, in slices as the server does, and checks what is counted. Returns the worst of each kind."""
    store = RunStore(path, index_path=path.parent / "index" / "dashboard.sqlite")
    started_s = time.perf_counter()
    while "rollouts" in store.refresh(max_s=1.0) or not store.progress().ready:
        pass
    index_s = time.perf_counter() - started_s
    print(f"{'index':45} {index_s:8.1f} s")
    assert (store.num_rollouts(), store.problems()) == (num_rollouts, ())
    steps = store.table_steps("train")
    pages = [timed(f"step {step}", lambda step=step: store.step_rows("train", step)) for step in (0, steps[-2])]  # type: ignore[misc]
    assert len(pages[-1][0]) == 512
    filters = [
        timed(f"{text} by {sort}", lambda text=text, sort=sort: store.query(text, sort, 0, 100))  # type: ignore[misc]
        for text, sort in QUERIES
    ]
    totals = dict(zip(QUERIES, (page.total for page, _ in filters), strict=True))
    assert totals["", "-max_gap"] == totals["e", "-entropy"] == totals["!(zzzz | lag>0)", "-length"] == num_rollouts
    assert 0.45 < totals["therefore", "-max_gap"] / num_rollouts < 0.55
    gaps = [row.max_gap or 0.0 for row in filters[0][0].rows]
    assert gaps == sorted(gaps, reverse=True)
    row = pages[-1][0][200]
    record, rollout_ms = timed("rollout", lambda: store.rollout(row.address, row.sample_index))
    assert record is not None
    assert len(record.token_ids) == row.length > 0
    assert record.text.startswith(row.preview)
    store.actor_stats()
    assert set(store.ledger_anomalies().values()) == {0}
    store.close()
    return {
        "index_s": index_s,
        "step_ms": max(ms for _, ms in pages),
        "filter_ms": max(ms for _, ms in filters),
        "rollout_ms": rollout_ms,
        "rss_mb": memory_mb(),
    }


def test_twenty_thousand_rollouts(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 20_000)
    measure(tmp_path / "run", 20_000)


@pytest.mark.slow
def test_a_million_rollouts(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 1_000_000)
    # In a process of its own: that of the tests has grown already.
    code = (
        "import json, sys; from pathlib import Path; from tests.cluster.dashboard.test_scale import measure\n"
        "print(json.dumps(measure(Path(sys.argv[1]), 1_000_000)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, timeout=550
    )
    print(done.stdout, done.stderr)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["index_s"] < INDEX_S
    assert figures["step_ms"] < STEP_MS
    assert figures["filter_ms"] < FILTER_MS
    assert figures["rollout_ms"] < ROLLOUT_MS
    assert figures["rss_mb"] < RSS_MB
