"""What `make bench-check` calls worse, and what the page says."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks import results
from tests.benchmarks.pairs import Ratio, compare
from tests.benchmarks.results import Bound, Result
from tests.benchmarks.suite import worse

MORE = Result(
    name="a", what="a over b", ratio=0.9, low=0.88, high=0.92, bound=Bound(value=0.85, is_least=True), note="small"
)
LESS = replace(MORE, name="b", ratio=1.03, low=1.01, high=1.05, bound=Bound(value=1.05, is_least=False))


def test_the_interval_of_a_median_holds_it_and_is_that_of_the_pairs() -> None:
    ratio = Ratio.of((1.0, 1.1, 1.2, 1.3, 9.0))
    assert ratio.median == 1.2
    assert (ratio.low, ratio.high) == (1.0, 9.0)
    assert Ratio.of((2.0,) * 7).low == Ratio.of((2.0,) * 7).high == 2.0
    assert Ratio.of((1.0, 2.0, 4.0)).times(0.5).pairs == (0.5, 1.0, 2.0)


def test_arms_take_turns_after_their_warm_ups() -> None:
    order: list[str] = []
    ratio = compare(lambda: order.append("a"), lambda: order.append("b"), num_pairs=3)
    assert "".join(order) == "abab" + "ab" + "ba" + "ab"
    assert len(ratio.pairs) == 3


def test_worse_is_a_tenth_beyond_what_noise_explains() -> None:
    assert not replace(MORE, ratio=0.82, low=0.80, high=0.84).is_worse_than(MORE), "less than a tenth"
    assert replace(MORE, ratio=0.80, low=0.78, high=0.82).is_worse_than(MORE)
    assert not replace(MORE, ratio=0.80, low=0.60, high=0.95).is_worse_than(MORE), "the interval reaches the stored one"
    assert replace(LESS, ratio=1.2, low=1.15, high=1.25).is_worse_than(LESS)
    assert not replace(LESS, ratio=0.5, low=0.4, high=0.6).is_worse_than(LESS), "better"
    assert not replace(MORE, bound=None, ratio=0.1, low=0.1, high=0.1).is_worse_than(MORE), "only told"
    seconds = replace(LESS, ratio=0.5, low=0.5, high=0.5, is_absolute=True)
    assert not replace(seconds, ratio=1.0, low=1.0, high=1.0).is_worse_than(seconds), "its bound is met"
    assert replace(seconds, ratio=1.1, low=1.1, high=1.1).is_worse_than(seconds)


def test_what_is_not_stored_is_nothing_to_be_held_against() -> None:
    assert worse([MORE, LESS], {"a": MORE}) == ["b is not stored: run make bench first"]
    assert worse([MORE], {"a": replace(MORE, ratio=2.0)}) == ["a is worse: 0.9, stored 2"]


def test_what_was_not_measured_this_time_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FILE", tmp_path / "benchmarks.json")
    monkeypatch.setattr(results, "PAGE", tmp_path / "benchmarks.md")
    results.write([MORE, LESS])
    better = replace(LESS, ratio=1.0, low=0.99, high=1.01)
    results.write([better])
    assert results.read() == {"a": MORE, "b": better}
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| `a` | a over b (small) | 0.9 | 0.88 to 0.92 | at least 0.85 | yes |" in page
    assert "| `b` | a over b (small) | 1 | 0.99 to 1.01 | at most 1.05 | yes |" in page
    results.write([replace(MORE, ratio=0.5)])
    assert "| 0.5 | 0.88 to 0.92 | at least 0.85 | no |" in (tmp_path / "benchmarks.md").read_text()
