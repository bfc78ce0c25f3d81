"""Seconds and shares that spans cover."""

import pytest

from cluster.dashboard.figures.coverage import covered, union_s, utilisation
from tests.cluster.dashboard.span_store import span


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
