from collections.abc import Sequence

import pytest

from cluster.dashboard.figures.waits import Chains, Wait, critical_path, recorded_waits, totals, waits_of
from cluster.dashboard.records import Span
from tests.cluster.dashboard.span_store import numbered, span, waits_for

TWO_SAMPLERS = numbered(
    [
        span("sync", "sampler-0", 0, 1, step=0),
        span("sync", "sampler-1", 0, 1, step=0),
        span("generate", "sampler-0", 1, 3, "a"),
        span("generate", "sampler-1", 1, 9, "b"),  # the slow one
        span("score", "reward-0", 3, 4, "a"),
        span("score", "reward-0", 9, 10, "b"),
        span("train", "learner-0", 10, 15, "a", "b", step=0),
        span("train", "learner-1", 10, 15, "a", "b", step=0),
        span("sync", "sampler-0", 15, 16, step=1),
        span("sync", "sampler-1", 15, 16, step=1),
        span("generate", "sampler-0", 16, 18, "c"),
        span("generate", "sampler-1", 16.5, 24, "d"),
        span("score", "reward-0", 18, 19, "c"),
        span("score", "reward-0", 24, 25, "d"),
        span("train", "learner-0", 25, 30, "c", "d", step=1),
        span("train", "learner-1", 25, 30, "c", "d", step=1),
    ]
)


def waits(actor: str, spans: Sequence[Span] = TWO_SAMPLERS) -> list[Wait]:
    return waits_of(actor, [s for s in spans if s.actor == actor], Chains(spans), 0, 30)


def test_the_learner_waits_for_the_slow_sampler() -> None:
    first, second = waits("learner-0")
    # sync 0-1 and generate 1-9 are sampler-1's, score 9-10 is reward-0's; sampler-0's sync ended at the same time
    assert (first.start_s, first.end_s, first.on) == (0, 10, "sampler-1")
    assert first.shares["reward-0"] == 1
    assert sum(first.shares.values()) == 10
    # 16-16.5 nobody worked: sampler-1 was late to begin
    assert (second.start_s, second.end_s, second.on, second.step) == (15, 25, "sampler-1", 1)
    assert second.shares["sampler-1"] >= 8
    assert second.shares["reward-0"] == 1


def test_the_fast_sampler_waits_for_the_slow_one_and_the_learner() -> None:
    (gap,) = waits("sampler-0")
    assert (gap.start_s, gap.end_s, gap.on) == (3, 15, "sampler-1")
    assert gap.shares == pytest.approx({"sampler-1": 6, "reward-0": 1, "learner-0": 5})


def test_a_gap_that_is_cut_has_the_shares_of_what_is_left() -> None:
    own = [s for s in TWO_SAMPLERS if s.actor == "sampler-0"]
    gap = waits_of("sampler-0", own, Chains(TWO_SAMPLERS), 0, 30, cut_s=9.5)[0]
    assert (gap.start_s, gap.end_s) == (3, 9.5)
    assert gap.shares == pytest.approx({"sampler-1": 6, "reward-0": 0.5})  # the learner had not begun
    assert waits_of("sampler-0", own, Chains(TWO_SAMPLERS), 0, 30, cut_s=3) == []


def test_the_slow_sampler_waits_for_reward_and_learner_only() -> None:
    gap = waits("sampler-1")[0]
    assert (gap.start_s, gap.end_s) == (9, 15)
    assert gap.shares == pytest.approx({"reward-0": 1, "learner-0": 5})


def test_ranks_do_not_wait_for_one_another() -> None:
    assert all("learner-1" not in wait.shares for wait in waits("learner-0"))


def test_nothing_is_a_wait_after_the_last_span() -> None:
    assert waits("sampler-0")[-1].end_s == 15
    assert waits("reward-0")[-1].end_s == 24


def test_totals_are_by_pair_and_longest_first() -> None:
    rows = totals([*waits("learner-0"), *waits("sampler-0")])
    assert rows[0][:2] == ("learner-0", "sampler-1")
    assert [seconds for _, _, seconds in rows] == sorted((s for _, _, s in rows), reverse=True)
    assert ("sampler-0", "learner-0", 5) in rows


def test_waits_that_the_run_recorded_are_kept() -> None:
    spans = [span("wait", "learner-0", 2, 5, **waits_for("sampler-3")), span("wait", "learner-0", 6, 7)]
    found = recorded_waits(spans)
    assert [(w.on, w.end_s - w.start_s) for w in found] == [("sampler-3", 3), ("", 1)]
    assert totals(found) == [("learner-0", "sampler-3", 3)]


def test_a_gap_that_a_recorded_wait_fills_is_not_told_twice() -> None:
    spans = [
        span("train", "learner-0", 0, 2, step=0),
        span("wait", "learner-0", 2, 5),
        span("train", "learner-0", 5, 6),
    ]
    assert waits_of("learner-0", spans, Chains(spans), 0, 6) == []


def test_critical_path_goes_through_the_slow_sampler() -> None:
    path = critical_path(1, TWO_SAMPLERS, Chains(TWO_SAMPLERS))
    told = [(s.actor, s.kind, s.start_s, s.end_s) for s in path]
    assert told[1:] == [
        ("sampler-1", "wait", 16, 16.5),  # late to begin
        ("sampler-1", "generate", 16.5, 24),
        ("reward-0", "score", 24, 25),
        ("learner-0", "train", 25, 30),
    ]
    assert told[0][1:] == ("sync", 15, 16)
    assert sum(s.end_s - s.start_s for s in path) == 15


def test_critical_path_of_the_first_step_begins_with_the_first_work() -> None:
    path = critical_path(0, TWO_SAMPLERS, Chains(TWO_SAMPLERS))
    assert (path[0].start_s, path[-1].end_s) == (0, 15)
    assert critical_path(9, TWO_SAMPLERS, Chains(TWO_SAMPLERS)) == []


def test_a_wait_without_any_predecessor_is_for_nobody() -> None:
    spans = [span("train", "learner-0", 5, 6, step=0), span("eval", "controller", 0, 1)]
    (gap,) = waits_of("learner-0", spans[:1], Chains(spans), 0, 6)
    assert (gap.on, gap.shares) == ("", {})


def test_many_spans_that_begin_and_end_together_end_the_walk() -> None:
    spans = [span("generate", "sampler-0", 1, 2, f"g{i}", id=i) for i in range(50)]
    spans += [
        span("sync", "sampler-0", 2, 2.0005),
        span("score", "reward-0", 2, 2.0002),
        span("train", "learner-0", 2, 3),
    ]
    (gap,) = waits_of("learner-0", [spans[-1]], Chains(spans), 0, 3)
    assert (gap.start_s, gap.end_s, gap.on) == (0, 2, "")  # that score cannot have come before: it began with it
    scored = span("score", "reward-0", 1.9995, 2)
    (gap,) = waits_of("learner-0", [spans[-1]], Chains([*spans, scored]), 0, 3)
    assert gap.on == "sampler-0"
    assert gap.shares["sampler-0"] == pytest.approx(1.9995)


def test_a_sampler_that_works_off_a_queue_is_charged_for_all_of_it() -> None:
    spans = numbered(
        [
            span("sync", "sampler-0", 0, 1, step=0),
            span("generate", "sampler-0", 1, 4, "a"),
            span("generate", "sampler-0", 4, 7, "b"),
            span("score", "reward-0", 4, 4.5, "a"),
            span("score", "reward-0", 7, 7.5, "b"),
            span("train", "learner-0", 7.5, 9, "a", "b", step=0),
        ]
    )
    path = critical_path(0, spans, Chains(spans))
    assert [(s.actor, s.kind, s.end_s - s.start_s) for s in path] == [
        ("sampler-0", "sync", 1),
        ("sampler-0", "generate", 3),
        ("sampler-0", "generate", 3),
        ("reward-0", "score", 0.5),
        ("learner-0", "train", 1.5),
    ]


def test_a_group_that_replaces_a_rejected_one_waited_for_its_score() -> None:
    spans = numbered(
        [
            span("sync", "sampler-0", 0, 1, step=0),
            span("sync", "sampler-1", 0, 1, step=0),
            span("generate", "sampler-0", 1, 3, "a"),
            span("generate", "sampler-1", 1, 10, "b"),
            span("score", "reward-0", 3, 4, "a"),
            span("score", "reward-0", 10, 11, "b"),
            span("generate", "sampler-0", 11, 12, "c"),
            span("score", "reward-0", 12, 13, "c"),
            span("train", "learner-0", 13, 20, "a", "c", step=0),
        ]
    )
    (gap,) = waits_of("learner-0", [spans[-1]], Chains(spans), 0, 20)
    assert gap.shares == pytest.approx({"sampler-1": 10, "reward-0": 2, "sampler-0": 1})
