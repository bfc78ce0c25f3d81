from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest

from cluster.dashboard.figures.coverage import union_s
from cluster.dashboard.records import Span
from cluster.dashboard.views.spans import span_page
from cluster.dashboard.views.timeline import timeline
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


def drawn_shares(answer: dict[str, Any], actor: str) -> dict[str, float]:
    """Kind -> share of the time that ran, of what is drawn of a lane."""
    found, length = lane(answer, actor), answer["to"] - answer["from"]
    running = length - sum(stop["end"] - stop["start"] for stop in answer["stops"])
    if "cells" in found:
        return {kind: sum(cells) / len(cells) * length / running for kind, cells in found["cells"]["kinds"].items()}
    spans = [span(bar["kind"], actor, bar["start"], bar["end"]) for bar in found["spans"] if bar["kind"] != "instant"]
    kinds = {s.kind for s in spans}
    return {
        kind: union_s([s for s in spans if s.kind == kind], answer["from"], answer["to"]) / running for kind in kinds
    }


def test_a_long_run_is_drawn_by_shares_of_all_its_spans() -> None:
    spans = steps_of_a_run(400)
    answer = page(SpanStore(spans), limit=200)
    assert answer["merged"] is True
    assert answer["waits_window"][0] > answer["from"]
    assert {(w["actor"], w["for"]) for w in answer["waits"]} >= {("learner-0", "sampler-0"), ("sampler-0", "learner-0")}
    # Of each step's 10 s: 3 of training, 3.25 of sampling (the last group ends at 4.25, after 1 s of sync), 2.75 of
    # scoring (from 2 to 2.5, 2.75 to 3.25, 3.5 to 4, 4.25 to 4.75: 2 s); 4003 s in all, from the evaluation on.
    length = 33 + 3970
    for actor, kind, seconds in (
        ("learner-0", "train", 400 * 3),
        ("sampler-0", "generate", 400 * 3.25),
        ("sampler-0", "sync", 400),
        ("sampler-0", "eval", 3),
        ("reward-0", "score", 400 * 2),
    ):
        assert lane(answer, actor)["utilisation"][kind] == pytest.approx(seconds / length), (actor, kind)
        assert drawn_shares(answer, actor)[kind] == pytest.approx(seconds / length, rel=0.02), (actor, kind)
    assert lane(answer, "learner-0")["utilisation"]["idle"] == pytest.approx(1 - 1200 / length)
    # It is drawn to its ends: each pixel of a sampler has something.
    cells = lane(answer, "sampler-0")["cells"]["kinds"]["generate"]
    assert len(cells) == 256
    assert min(cells[2:]) > 0.1
    # The evaluation, which is one span of few, is a bar.
    assert [bar["kind"] for bar in lane(answer, "controller")["spans"]] == ["eval"]


def test_a_window_that_can_be_read_draws_a_lane_of_too_many_bars_by_shares_and_tells_all_waits() -> None:
    store = SpanStore(steps_of_a_run(60))  # 601 spans: read at a limit of 200, but 60 steps have 300 blocks and waits
    answer = page(store, limit=200)
    assert answer["merged"] is True
    assert answer["waits_window"] == [996.0, 1599.0]
    assert lane(answer, "learner-0")["utilisation"]["wait"] == pytest.approx(1 - 180 / 603)
    for actor in ("learner-0", "sampler-0", "reward-0"):
        for kind, share in drawn_shares(answer, actor).items():
            assert share == pytest.approx(lane(answer, actor)["utilisation"][kind], rel=0.02), (actor, kind)


def resumed_run() -> list[Span]:
    """Six steps; before the fourth it lay still for ten hours, and took back what it had done of it."""
    first = steps_of_a_run(3)
    second = [
        replace(s, id=0, step=None if s.step is None else s.step + 3) for s in steps_of_a_run(3, start_s=37_033.0)
    ]
    again = [replace(s, ids=tuple(f"9{i}" for i in s.ids)) for s in second if s.kind != "eval"]
    back = span("instant", "controller", 37_032.5, 37_032.5, name="resumed", text="from step-000003", step=3)
    return numbered([*first, back, *again])


def test_nobody_waits_while_the_run_is_stopped() -> None:
    answer = page(SpanStore(resumed_run()))
    assert answer["stops"] == [{"start": 1029.0, "end": 37_032.5, "label": "stopped, resumed from step-000003"}]
    assert answer["extent"] == [996.0, 37_062.0]
    running = 33 + 29.5
    assert sum(row["seconds"] for row in answer["waits"]) < 4 * running
    longest = max(row["seconds"] for row in answer["waits"])
    assert longest < running
    learner = lane(answer, "learner-0")
    assert learner["utilisation"]["train"] == pytest.approx(18 / running)
    assert sum(learner["utilisation"].values()) == pytest.approx(1)
    for bar in (bar for each in answer["lanes"] for bar in each["spans"]):
        assert bar["end"] <= 1029.0 or bar["start"] >= 37_032.5


def test_the_step_after_a_stop_took_what_it_took() -> None:
    answer = page(SpanStore(resumed_run()))
    assert [(s["step"], s["end"] - s["start"]) for s in answer["steps"]] == [
        (0, pytest.approx(13 + 0)),  # from the run's first moment
        (1, pytest.approx(10)),
        (2, pytest.approx(10)),
        (3, pytest.approx(9.5)),
        (4, pytest.approx(10)),
        (5, pytest.approx(10)),
    ]
    paths = {path["step"]: path for path in answer["critical"]}
    assert paths[3]["end"] - paths[3]["start"] == pytest.approx(9.5)  # from when it was resumed
    assert paths[3]["seconds"][0] == {"actor": "sampler-0", "kind": "generate", "seconds": pytest.approx(3.25)}


def test_a_window_within_a_stop_and_one_across_it() -> None:
    store = SpanStore(resumed_run())
    inside = page(store, 5000.0, 6000.0)
    assert [each["spans"] for each in inside["lanes"]] == [[]] * 4
    assert (inside["waits"], inside["critical"]) == ([], [])
    assert [each["utilisation"] for each in inside["lanes"]] == [{}] * 4
    across = page(store, 1022.0, 37_036.0)
    waits = {(row["actor"], row["for"]): row["seconds"] for row in across["waits"]}
    # Of the sampler: from its last group at 1024.25 to nothing, for nothing of that session followed.
    assert ("sampler-0", "learner-0") not in waits
    # Of the learner: till 1026 its training of step 2, then the half second before the first sync of the resumed run.
    assert sum(seconds for (who, _), seconds in waits.items() if who == "learner-0") == pytest.approx(3.5 + 4 - 1.25)


def test_a_long_resumed_run_is_drawn_as_it_ran() -> None:
    first = steps_of_a_run(300)
    last_s = first[-1].end_s
    back = span("instant", "controller", last_s + 5e4, last_s + 5e4, name="resumed", text="from step-000300", step=300)
    again = [
        replace(s, step=None if s.step is None else s.step + 300)
        for s in steps_of_a_run(300, start_s=last_s + 5e4 + 1)
        if s.kind != "eval"
    ]
    answer = page(SpanStore(numbered([*first, back, *again])), limit=400)
    assert answer["merged"] is True
    running = 3003 + 3000
    assert lane(answer, "learner-0")["utilisation"]["train"] == pytest.approx(1800 / running)
    assert drawn_shares(answer, "learner-0")["train"] == pytest.approx(1800 / running, rel=0.02)
    cells = lane(answer, "learner-0")["cells"]["kinds"]["train"]
    stopped = [share for share in cells if share == 0]
    assert len(stopped) == pytest.approx(len(cells) * 5e4 / (5e4 + running), abs=2)
    assert max(row["seconds"] for row in answer["waits"]) < running
    assert [step["end"] - step["start"] for step in answer["steps"]][1:300] == pytest.approx([10] * 299)
    assert max(step["end"] - step["start"] for step in answer["steps"]) < 14


def test_of_very_many_steps_those_told_are_spread_over_all() -> None:
    trained = [span("train", "learner-0", 10 * i, 10 * i + 5, step=i) for i in range(2500)]
    answer = page(SpanStore(numbered(trained)))
    steps = [step["step"] for step in answer["steps"]]
    assert (len(steps), steps[0], steps[-1], max(b - a for a, b in pairwise(steps))) == (1000, 0, 2499, 3)
    assert all(step["end"] - step["start"] in (5, 10) for step in answer["steps"])


def test_steps_that_name_no_groups_are_resolved_when_nothing_runs_ahead() -> None:
    spans = [replace(s, ids=()) for s in steps_of_a_run(3)]
    for lag, steps in ((0, [0, 1, 2]), (1, [None])):
        answer = page(SpanStore(spans, max_policy_lag=lag))
        generated = [s for s in lane(answer, "sampler-0")["spans"] if s["kind"] == "generate"]
        assert list(dict.fromkeys(s["step"] for s in generated)) == steps
    bars = lane(page(SpanStore(spans)), "learner-0")["spans"]
    assert [bar["groups"] for bar in bars if bar["kind"] == "train"] == [4] * 3


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
    spans = numbered(
        [
            span("generate", "sampler-0", 4, 8, policy_version=6),
            span("sync", "sampler-0", 10, 11, policy_version=7),
            span("sync", "sampler-1", 10, 12, policy_version=7),
            span("generate", "sampler-0", 12, 18, policy_version=7),
            span("sync", "sampler-1", 19, 20, policy_version=7),  # it was started anew
            span("generate", "sampler-1", 20, 22, policy_version=7),
        ]
    )
    store = SpanStore(spans)
    assert page(store)["versions"] == [{"time_s": 4, "version": 6}, {"time_s": 12, "version": 7}]
    assert page(store, 5.0, 6.0)["versions"] == [{"time_s": 5, "version": 6}]
    assert page(store, 15.0, 22.0)["versions"] == [{"time_s": 15, "version": 7}]
    assert page(SpanStore([span("train", "learner-0", 1, 2, step=0)]))["versions"] == []


def test_a_version_that_a_resumed_run_has_again_is_told_twice() -> None:
    spans = [
        span("sync", "sampler-0", 10, 11, policy_version=1),
        span("sync", "sampler-0", 20, 21, policy_version=2),
        span("instant", "controller", 60, 60, name="resumed"),
        span("sync", "sampler-0", 61, 62, policy_version=1),
        span("sync", "sampler-0", 70, 71, policy_version=2),
    ]
    told = [(each["time_s"], each["version"]) for each in page(SpanStore(numbered(spans)))["versions"]]
    assert told == [(11, 1), (21, 2), (62, 1), (71, 2)]


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
