"""The timeline of the largest runs: what is drawn against what each line of the file says, and how long it takes."""

import json
import math
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard.index.store import RunStore
from cluster.dashboard.views.timeline import timeline
from tests.cluster.dashboard.long_run import write_long_run
from tests.cluster.dashboard.million_run import write_logs

LIMIT_S = 2.0
LOOKS = 5
"""The best of so many, as other processes may hold the processors at the moment of one."""


def seconds_of_file(path: Path) -> dict[tuple[str, str], float]:
    """(actor, kind) -> seconds in which at least one of its spans ran."""
    spans: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with (path / "events.jsonl").open() as file:
        for line in map(json.loads, file):
            if line["kind"] != "instant":
                spans[line["actor"], line["kind"]].append((line["start_s"], line["end_s"]))
    found = {}
    for key, times in spans.items():
        total, reached = 0.0, float("-inf")
        for start_s, end_s in sorted(times):
            total += max(0.0, end_s - max(start_s, reached))
            reached = max(reached, end_s)
        found[key] = total
    return found


def drawn_seconds(lane: dict[str, Any], kind: str, length: float) -> float:
    if "cells" in lane:
        cells = lane["cells"]["kinds"][kind]
        return float(sum(cells)) / len(cells) * length
    return math.fsum(bar["end"] - bar["start"] for bar in lane["spans"] if bar["kind"] == kind)


def check(path: Path) -> list[float]:
    """Checks what is drawn of a run and computed beside it; the seconds of the answers."""
    store = RunStore(path)
    try:
        store.refresh()
        took = []
        for _ in range(LOOKS):
            began = time.perf_counter()
            answer = timeline(store, None, None, 4000)
            took.append(time.perf_counter() - began)
    finally:
        store.close()
    length = answer["to"] - answer["from"]
    running = length - sum(stop["end"] - stop["start"] for stop in answer["stops"])
    lanes = {lane["actor"]: lane for lane in answer["lanes"]}
    expected = seconds_of_file(path)
    assert len(expected) >= 8
    for (actor, kind), seconds in expected.items():
        computed = lanes[actor]["utilisation"][kind] * running
        assert computed == pytest.approx(seconds, rel=1e-6), (actor, kind)
        assert drawn_seconds(lanes[actor], kind, length) == pytest.approx(computed, rel=0.02), (actor, kind)
    print(path.name, [round(seconds, 2) for seconds in took])
    return took


@pytest.mark.parametrize("num_steps", [12, 600])
def test_a_resumed_run(tmp_path: Path, num_steps: int) -> None:
    write_long_run(tmp_path / "run", num_steps)
    check(tmp_path / "run")


@pytest.mark.slow
def test_twenty_thousand_steps_and_a_resume(tmp_path: Path) -> None:
    write_long_run(tmp_path / "run", 20_000)
    assert min(check(tmp_path / "run")) < LIMIT_S


@pytest.mark.slow
def test_a_million_rollouts(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_logs(tmp_path / "run", 1_000_000)
    assert min(check(tmp_path / "run")) < LIMIT_S
