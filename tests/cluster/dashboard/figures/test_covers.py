import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.dashboard.figures.coverage import covered, union_s
from cluster.dashboard.figures.covers import NOTHING, Cover, apart_from, cover_of, union
from tests.cluster.dashboard.span_store import span


def of(*pairs: tuple[float, float]) -> Cover:
    return cover_of(span("generate", "s", a, b) for a, b in pairs)


def stretches(found: Cover) -> list[tuple[float, float]]:
    return list(zip(found.start_s.tolist(), found.end_s.tolist(), strict=True))


def test_what_overlaps_is_one_stretch_and_counts_once() -> None:
    found = of((10, 14), (12, 13), (0, 2), (14, 15), (20, 21))
    assert stretches(found) == [(0, 2), (10, 15), (20, 21)]
    assert found.seconds(0, 100) == 8
    assert found.seconds(1, 11) == 2
    assert found.seconds(3, 9) == 0
    assert found.seconds(16, 15) == 0


def test_the_share_of_each_pixel() -> None:
    assert of((0, 1), (5, 10), (12, 12.5)).shares(0, 16, 4).tolist() == [0.25, 0.75, 0.5, 0.125]
    assert NOTHING.shares(0, 16, 2).tolist() == [0, 0]
    assert of((-5, 3)).shares(0, 4, 2).tolist() == [1, 0.5]


def test_a_union_and_what_is_apart() -> None:
    assert stretches(union([of((0, 2), (4, 6)), of((1, 5)), NOTHING])) == [(0, 6)]
    assert stretches(union([])) == []
    # The first is alone, in the second one there is another, the third ends where another starts.
    assert stretches(apart_from(of((0, 4), (10, 14), (20, 24)), of((12, 13), (24, 30)))) == [(0, 4), (20, 24)]


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=30),
    st.integers(-5, 60),
    st.integers(1, 40),
    st.integers(1, 9),
)
def test_all_pixels_together_are_what_the_spans_cover(
    times: list[tuple[int, int]], start: int, length: int, pixels: int
) -> None:
    spans = [span("generate", "s", a, a + b) for a, b in times]
    shares = cover_of(spans).shares(start, start + length, pixels)
    assert np.all((shares >= -1e-12) & (shares <= 1 + 1e-12))
    assert shares.sum() * length / pixels == pytest.approx(union_s(spans, start, start + length))
    assert [pair for pair in stretches(cover_of(spans)) if pair[1] > pair[0]] == covered(spans, -100, 200)
