import json
from itertools import pairwise
from typing import Any, cast

import pytest

from cluster.dashboard.views.trace import PART_EVENTS, chrome_trace_text
from tests.cluster.dashboard.span_store import SpanStore, numbered, span

SPANS = numbered(
    [
        span("generate", "sampler-0", 100, 104, "a", tokens=7, policy_version=2),
        span("generate", "sampler-0", 100, 103, "b"),
        span("sync", "sampler-0", 104, 105, step=3),
        span("train", "learner-0", 101, 104.5, "x", "y", step=2),
        span("instant", "sampler-0", 102, 102, name="engine restarted"),
    ]
)


def trace() -> dict[str, Any]:
    found: dict[str, Any] = json.loads("".join(chrome_trace_text(cast(Any, SpanStore(SPANS)))))
    return found


def test_every_span_and_instant_is_there_with_its_numbers() -> None:
    events = trace()["traceEvents"]
    slices = [e for e in events if e["ph"] == "X"]
    assert len(slices) == 4
    train = next(e for e in slices if e["name"] == "train")
    assert (train["ts"], train["dur"]) == (1_000_000, 3_500_000)
    assert train["args"] == {"step": 2, "groups": ["x", "y"]}
    (instant,) = [e for e in events if e["ph"] == "i"]
    assert (instant["name"], instant["ts"]) == ("engine restarted", 2_000_000)


def test_actors_are_named_processes_in_the_order_of_the_lanes() -> None:
    events = trace()["traceEvents"]
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {1: "learner-0", 2: "sampler-0"}
    threads = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in events if e["ph"] == "X"} <= threads


def test_the_time_in_which_the_run_was_stopped_is_a_slice_of_its_own() -> None:
    back = span("instant", "controller", 160, 160, name="resumed", text="from step-000003", id=len(SPANS))
    text = "".join(chrome_trace_text(cast(Any, SpanStore([*SPANS, back]))))
    (stopped,) = (event for event in json.loads(text)["traceEvents"] if event["name"] == "stopped")
    assert (stopped["ph"], stopped["ts"], stopped["dur"]) == ("X", 5_000_000, 55_000_000)
    assert stopped["args"] == {"name": "stopped, resumed from step-000003"}


def test_slices_of_a_thread_do_not_overlap() -> None:
    by_thread: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for event in trace()["traceEvents"]:
        if event["ph"] == "X":
            by_thread.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    assert len(by_thread) == 3  # two groups at once: two rows of the sampler
    for times in by_thread.values():
        times.sort()
        assert all(earlier[1] <= later[0] for earlier, later in pairwise(times))


def test_a_long_trace_comes_in_parts() -> None:
    spans = numbered([span("train", "learner-0", at, at + 1, step=at) for at in range(2 * PART_EVENTS)])
    parts = list(chrome_trace_text(cast(Any, SpanStore(spans))))
    assert len(parts) == 1 + 3 + 1  # head, three parts with the names of the lane, end
    found = json.loads("".join(parts))
    assert [e["args"]["step"] for e in found["traceEvents"] if e["ph"] == "X"] == list(range(2 * PART_EVENTS))
    assert found["otherData"] == {"run": "made-up", "started_s": 0}


def test_a_run_without_events_is_an_empty_trace() -> None:
    text = "".join(chrome_trace_text(cast(Any, SpanStore([]))))
    assert json.loads(text)["traceEvents"] == []
    assert json.loads(text)["otherData"]["started_s"] is None


@pytest.mark.parametrize("value", ["</script>", "\ud800", "\x00"])
def test_hostile_names_are_json(value: str) -> None:
    spans = numbered([span("instant", "sampler-0", 1, 1, name=value)])
    text = "".join(chrome_trace_text(cast(Any, SpanStore(spans))))
    assert json.loads(text)["traceEvents"][-1]["name"] == value
