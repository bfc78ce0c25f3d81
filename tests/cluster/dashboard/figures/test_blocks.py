"""What of an actor's spans is drawn as one block, and in which row."""

from hypothesis import given
from hypothesis import strategies as st

from cluster.dashboard.figures.blocks import blocks_of, in_rows
from cluster.dashboard.figures.coverage import union_s
from tests.cluster.dashboard.span_store import span

intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20), st.sampled_from([3, 4, None])), max_size=40)


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
