"""Windows, points and x axes of charts."""

import pytest

from cluster.dashboard.figures.series import axes_of, combine, difference, divide, median_known, thin, x_of
from cluster.dashboard.records import MetricTable
from tests.cluster.dashboard.span_store import span


def table(**columns: list[float | None]) -> MetricTable:
    named = {name.replace("__", "/"): values for name, values in columns.items()}
    return MetricTable(steps=range(len(next(iter(named.values())))), columns=named)


def test_few_steps_are_shown_as_they_are() -> None:
    thinning = thin([0, 1, 2], points=400, from_step=None, to_step=None)
    assert thinning.first([10, 11, 12]) == [10, 11, 12]
    assert thinning.mean([1.0, None, 3.0]) == [1.0, None, 3.0]


def test_many_steps_become_means_of_neighbours() -> None:
    thinning = thin(range(10), points=4, from_step=None, to_step=None)
    assert thinning.first(range(10)) == [0, 3, 6, 9]
    # (0+1+2)/3, (3+5)/2 without the missing one, nothing at all, and the rest of the division alone
    values = [0.0, 1.0, 2.0, 3.0, None, 5.0, None, None, None, 9.0]
    assert thinning.mean(values) == [1.0, 4.0, None, 9.0]
    assert thinning.greatest(values) == [2.0, 5.0, None, 9.0]


@pytest.mark.parametrize("num_steps", [1, 399, 400, 401, 799, 801, 12345])
def test_never_more_points_than_asked_for(num_steps: int) -> None:
    thinning = thin(range(num_steps), points=400, from_step=None, to_step=None)
    assert 1 <= len(thinning.starts) <= 400
    assert len(thinning.mean([1.0] * num_steps)) == len(thinning.starts)


def test_a_window_includes_both_ends() -> None:
    steps = [0, 1, 2, 5, 6]
    thinning = thin(steps, points=10, from_step=1, to_step=5)
    assert thinning.first(steps) == [1, 2, 5]
    assert thinning.mean([0.0, 1.0, 2.0, 3.0, 4.0]) == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("from_step", "to_step"), [(7, None), (None, -1), (4, 2)])
def test_a_window_without_steps_is_empty(from_step: int | None, to_step: int | None) -> None:
    thinning = thin(range(5), points=10, from_step=from_step, to_step=to_step)
    assert thinning.first(range(5)) == []
    assert thinning.mean([1.0] * 5) == []


def test_no_steps_give_no_points() -> None:
    empty = MetricTable(steps=[], columns={})
    assert x_of(axes_of(empty), thin([], points=10, from_step=None, to_step=None)) == {
        "step": [],
        "time_s": [],
        "tokens": [],
    }


def test_time_is_counted_from_the_begin_of_the_first_step() -> None:
    # Ends at 1010 and 1030; the first took 10 s, so the run began at 1000. The 20 s between hold a step of 5 s and a
    # restart.
    run = table(time__step_s=[10.0, 5.0], time__ended_s=[1010.0, 1030.0], rollout__completion_tokens=[7.0, 8.0])
    assert axes_of(run).time_s == [10.0, 30.0]
    assert axes_of(run).tokens == [7.0, 15.0]


def test_no_time_goes_by_while_the_run_is_stopped() -> None:
    run = table(time__step_s=[10.0, 5.0, 5.0], time__ended_s=[1010.0, 50_030.0, 50_036.0])
    stop = span("stopped", "controller", 1012.0, 50_022.0)
    # From 1000: 10 s, then 2 s before the stop and 8 s after it, then 6 s more.
    assert axes_of(run, [stop]).time_s == [10.0, 20.0, 26.0]
    earlier = span("stopped", "controller", 900.0, 950.0)  # before its first step was done
    assert axes_of(run, [earlier, stop]).time_s == [10.0, 20.0, 26.0]


def test_time_of_an_older_run_is_the_sum_of_its_steps() -> None:
    assert axes_of(table(time__step_s=[10.0, None, 5.0])).time_s == [10.0, None, 15.0]


def test_time_of_a_run_that_recorded_its_ends_later_goes_on_without_a_jump() -> None:
    # 10 + 5 s of work when the first end was recorded, at 1015: it began at 1000.
    run = table(time__step_s=[10.0, 5.0, 5.0], time__ended_s=[None, 1015.0, 1021.0])
    assert axes_of(run).time_s == [10.0, 15.0, 21.0]


def test_a_count_from_the_start_becomes_a_count_by_step() -> None:
    # 2, then 3 more, nothing known, 1 more than the 5, and a counter that began anew
    assert difference([2.0, 5.0, None, 6.0, 1.0]) == [2.0, 3.0, None, 1.0, 1.0]


def test_what_is_missing_in_one_column_is_missing_in_the_result() -> None:
    assert divide([6.0, None, 1.0, 4.0], [2.0, 1.0, None, 0.0]) == [3.0, None, None, None]
    assert combine(lambda a, b: a - b, [5.0, None], [2.0, 1.0]) == [3.0, None]


def test_a_median_needs_enough_values() -> None:
    assert median_known([1.0, None, 9.0, 2.0]) == 2.0
    assert median_known([1.0, None, 9.0], at_least=3) is None
