from typing import Any, cast

import pytest

from cluster.dashboard.records import Span
from cluster.dashboard.views.timeline import span_page, timeline, versions
from tests.cluster.dashboard.span_store import SpanStore, numbered, span, waits_for


def steps_of_a_run(num_steps: int, *, groups: int = 4, start_s: float = 1000.0) -> list[Span]:
    """A synchronous run: sync 1 s, sampling 4 s (groups end one after the other), scoring to 5.5 s, training 3 s."""
    spans = [span("eval", "controller", start_s - 4, start_s - 1, step=0)]
    for step in range(num_steps):
        t = start_s + 10 * step
        ids = [f"{step:03d}-{i}" for i in range(groups)]
        spans.append(span("sync", "sampler-0", t, t + 1, step=step, policy_version=step))
        for i, group_id in enumerate(ids):
            end = t + 2 + 3 * i / groups
            spans.append(span("generate", "sampler-0", t + 1, end, group_id, tokens=10, policy_version=step))
            spans.append(span("score", "reward-0", end, end + 0.5, group_id, policy_version=step))
        spans.append(span("train", "learner-0", t + 6, t + 9, *ids, step=step))
    return numbered(spans)


def page(store: SpanStore, from_s: float | None = None, to_s: float | None = None, limit: int = 4000) -> dict[str, Any]:
    return timeline(cast(Any, store), from_s, to_s, limit)


def lane(answer: dict[str, Any], actor: str) -> dict[str, Any]:
    found: dict[str, Any] = next(lane for lane in answer["lanes"] if lane["actor"] == actor)
    return found


def test_a_page_of_three_steps() -> None:
    answer = page(SpanStore(steps_of_a_run(3)))
    assert [lane["actor"] for lane in answer["lanes"]] == ["controller", "learner-0", "sampler-0", "reward-0"]
    assert answer["extent"] == [996.0, 1029.0]
    assert (answer["from"], answer["to"], answer["merged"]) == (996.0, 1029.0, False)
    generated = [s for s in lane(answer, "sampler-0")["spans"] if s["kind"] == "generate"]
    assert [(s["step"], s["version"], s["groups"], len(s["parts"])) for s in generated] == [
        (0, 0, 4, 4),
        (1, 1, 4, 4),
        (2, 2, 4, 4),
    ]
    assert [v["version"] for v in answer["versions"]] == [0, 1, 2]
    assert answer["versions"][1]["time_s"] == 1011.0


def test_the_samplers_take_part_in_an_evaluation() -> None:
    answer = page(SpanStore(steps_of_a_run(2)))
    first = lane(answer, "sampler-0")["spans"][0]
    assert (first["kind"], first["start"], first["end"]) == ("eval", 996.0, 999.0)
    own = lane(answer, "controller")["spans"][0]
    assert first["id"] == own["id"]


def test_waits_say_whom_for() -> None:
    answer = page(SpanStore(steps_of_a_run(3)))
    learner = lane(answer, "learner-0")
    gaps = [s for s in learner["spans"] if s["kind"] == "wait"]
    assert [gap["for"] for gap in gaps] == ["sampler-0"] * 3
    assert learner["utilisation"]["train"] == pytest.approx(9 / 33)
    assert sum(learner["utilisation"].values()) == pytest.approx(1)
    rows = {(row["actor"], row["for"]): row["seconds"] for row in answer["waits"]}
    assert rows["sampler-0", "learner-0"] == pytest.approx(2 * (3 + 1.25))  # it trains, and begins late
    assert all(row["actor"] != "controller" for row in answer["waits"])


def test_a_wait_is_cut_at_the_edges_of_the_window() -> None:
    answer = page(SpanStore(steps_of_a_run(3)), 1012.0, 1014.0)
    (gap,) = lane(answer, "learner-0")["spans"]
    assert (gap["kind"], gap["start"], gap["end"], gap["for"]) == ("wait", 1012.0, 1014.0, "sampler-0")
    assert lane(answer, "learner-0")["utilisation"] == {"wait": pytest.approx(1)}
    assert sum(row["seconds"] for row in answer["waits"] if row["actor"] == "learner-0") <= 2.0 + 1e-9


def test_critical_path_of_each_step() -> None:
    answer = page(SpanStore(steps_of_a_run(3)))
    assert [c["step"] for c in answer["critical"]] == [0, 1, 2]
    second = answer["critical"][1]
    assert second["end"] - second["start"] == pytest.approx(10)
    assert second["seconds"][0] == {"actor": "sampler-0", "kind": "generate", "seconds": pytest.approx(3.25)}
    assert {"actor": "learner-0", "kind": "wait", "seconds": pytest.approx(1.25)} in second["seconds"]


def test_a_long_run_fits_the_limit_and_tells_where_its_waits_are_from() -> None:
    store = SpanStore(steps_of_a_run(400))
    answer = page(store, limit=200)
    bars = [s for lane in answer["lanes"] for s in lane["spans"] if s["kind"] != "wait"]
    assert len(bars) <= 220
    assert answer["merged"] is True
    assert answer["waits_window"][0] > answer["from"]
    assert {(w["actor"], w["for"]) for w in answer["waits"]} >= {("learner-0", "sampler-0"), ("sampler-0", "learner-0")}
    busy = lane(answer, "learner-0")["utilisation"]["train"]
    assert busy == pytest.approx(0.3, abs=0.05)


def test_steps_without_groups_are_resolved_when_nothing_runs_ahead() -> None:
    spans = steps_of_a_run(3)
    for lag, steps in ((0, [0, 1, 2]), (1, [None, None, None])):
        answer = page(SpanStore(spans, max_policy_lag=lag, cut=5))
        generated = [s for s in lane(answer, "sampler-0")["spans"] if s["kind"] == "generate"]
        assert [s["step"] for s in generated] == steps
    assert [s["groups"] for s in lane(page(SpanStore(spans, cut=5)), "learner-0")["spans"] if s["kind"] == "train"] == [
        4
    ] * 3


def test_wait_and_down_of_the_file_are_shown_as_they_are() -> None:
    spans = numbered(
        [
            span("generate", "sampler-0", 0, 4, "a"),
            span("down", "sampler-0", 4, 7, reason="engine died"),
            span("wait", "sampler-0", 7, 9, **waits_for("learner-0")),
            span("generate", "sampler-0", 9, 10, "b"),
        ]
    )
    answer = page(SpanStore(spans))
    assert [(s["kind"], s["label"], s.get("for")) for s in lane(answer, "sampler-0")["spans"]] == [
        ("generate", "generate", None),
        ("down", "engine died", None),
        ("wait", "wait", "learner-0"),
        ("generate", "generate", None),
    ]
    assert answer["waits"] == [{"actor": "sampler-0", "for": "learner-0", "seconds": 2}]


def test_versions_begin_with_what_served_before() -> None:
    spans = [
        span("generate", "sampler-0", 4, 8, policy_version=6),
        span("sync", "sampler-0", 10, 11, policy_version=7),
        span("sync", "sampler-1", 10, 12, policy_version=7),
    ]
    assert versions(spans, 5.0) == [{"time_s": 5.0, "version": 6}, {"time_s": 12, "version": 7}]
    assert versions([], 5.0) == []


def test_a_run_without_events_has_no_lanes() -> None:
    answer = page(SpanStore([]))
    assert answer["lanes"] == []
    assert answer["extent"] is None


def test_a_span_leads_to_the_groups_of_its_block() -> None:
    spans = steps_of_a_run(3)
    store = SpanStore(spans)
    chosen = next(s for s in spans if s.ids == ("001-2",) and s.kind == "generate")
    answer = span_page(cast(Any, store), chosen.id)
    assert answer is not None
    assert answer["ids"] == ["001-2"]
    assert answer["extra"] == {"tokens": 10, "policy_version": 1}
    assert answer["step"] == 1
    assert answer["block"]["count"] == 4
    assert [g["group_id"] for g in answer["groups"]] == ["001-0", "001-1", "001-2", "001-3"]
    assert span_page(cast(Any, store), 10_000) is None
