import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.dashboard.figures.lanes import (
    blocks_of,
    coarser,
    covered,
    in_rows,
    lane_order,
    role_of,
    step_of_groups,
    union_s,
    utilisation,
    with_steps,
)
from tests.cluster.dashboard.span_store import span

intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20), st.sampled_from([3, 4, None])), max_size=40)


def test_lanes_are_ordered_by_role_and_number() -> None:
    actors = ["sampler-10", "reward-0", "learner-1", "sampler-2", "controller", "learner-0", "sampler-2", "proxy-1"]
    assert lane_order(actors) == [
        "controller",
        "learner-0",
        "learner-1",
        "sampler-2",
        "sampler-10",
        "reward-0",
        "proxy-1",
    ]
    assert role_of("sampler-10") == "sampler"
    assert role_of("controller") == "controller"


def test_groups_of_one_batch_are_one_block() -> None:
    spans = [span("generate", "sampler-0", 0, end, f"g{end}", step=4, policy_version=4) for end in (3, 5, 4)]
    (block,) = blocks_of(spans)
    assert (block.start_s, block.end_s, block.step, block.version, len(block.parts)) == (0, 5, 4, 4, 3)
    assert block.group_ids == {"g3", "g5", "g4"}


def test_what_is_sampled_ahead_stands_in_a_row_below() -> None:
    spans = [
        span("generate", "sampler-0", 0, 4, "a", step=1),
        span("generate", "sampler-0", 1, 6, "b", step=2),
        span("generate", "sampler-0", 2, 5, "c", step=1),
        span("sync", "sampler-0", 6, 7, step=2),
    ]
    assert [(b.kind, b.step, b.start_s, b.end_s, b.row) for b in blocks_of(spans)] == [
        ("generate", 1, 0, 5, 0),
        ("generate", 2, 1, 6, 1),
        ("sync", 2, 6, 7, 0),
    ]


def test_training_is_never_joined() -> None:
    spans = [span("train", "learner-0", 0, 5, step=0), span("train", "learner-0", 5, 9, step=0)]
    assert len(blocks_of(spans)) == 2


@given(intervals)
def test_blocks_keep_every_span_and_no_row_overlaps(times: list[tuple[float, float, int]]) -> None:
    spans = [span("generate", "s", a, a + length, step=step, id=i) for i, (a, length, step) in enumerate(times)]
    blocks = blocks_of(spans)
    assert sorted(part.id for block in blocks for part in block.parts) == list(range(len(times)))
    assert union_s(blocks, 0, 100) == union_s(spans, 0, 100)
    for row in {block.row for block in blocks}:
        ends = 0.0
        for block in (b for b in blocks if b.row == row):
            assert block.start_s >= ends
            ends = block.end_s
    assert [b.row for b in in_rows(blocks)] == [b.row for b in blocks]


def test_a_group_has_the_step_that_consumed_it() -> None:
    train = span("train", "learner-0", 10, 12, "a", "b", step=7)
    steps = step_of_groups([train, span("generate", "sampler-0", 0, 1, "c")])
    assert steps == {"a": 7, "b": 7}
    spans = [span("generate", "sampler-0", 0, 5, "a"), span("score", "reward-0", 5, 6, "c"), train]
    assert [s.step for s in with_steps(spans, steps, in_step_order=True)] == [7, None, 7]


def test_spans_without_groups_get_the_next_step_only_when_nothing_runs_ahead() -> None:
    spans = [
        span("generate", "sampler-0", 0, 5),
        span("train", "learner-0", 5, 6, step=0),
        span("generate", "sampler-0", 6, 9),
        span("train", "learner-0", 9, 12, step=1),
        span("generate", "sampler-0", 12, 14),
    ]
    assert [s.step for s in with_steps(spans, {}, in_step_order=True)] == [0, 0, 1, 1, None]
    assert [s.step for s in with_steps(spans, {}, in_step_order=False)] == [None, 0, None, 1, None]


def test_short_neighbours_are_joined_and_long_ones_stay() -> None:
    spans = [span("score", "reward-0", i, i + 0.5, step=i, id=i) for i in range(10)]
    spans.append(span("score", "reward-0", 20, 25, step=20, id=20))
    blocks = coarser(blocks_of(spans), 1.0)
    assert [(b.start_s, b.end_s, len(b.parts), b.step) for b in blocks] == [(0, 9.5, 10, None), (20, 25, 1, 20)]
    assert len(coarser(blocks_of(spans), 0.1)) == 11


def test_cover_is_clipped_and_joined() -> None:
    spans = [span("score", "r", 0, 2), span("score", "r", 1, 4), span("score", "r", 6, 9), span("score", "r", 5, 5)]
    assert covered(spans, 1, 8) == [(1, 4), (6, 8)]
    assert union_s(spans, 1, 8) == 5


def test_utilisation_shares_of_the_window() -> None:
    spans = [
        span("generate", "s", 0, 4),
        span("generate", "s", 2, 5),
        span("sync", "s", 5, 6),
        span("instant", "s", 7, 7),
    ]
    assert utilisation(spans, 0, 10) == pytest.approx({"generate": 0.5, "sync": 0.1, "idle": 0.4})
    assert utilisation(spans, 5, 5) == {}
