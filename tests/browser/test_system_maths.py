"""The arithmetic behind the system pages, asked of the page's own modules."""

from typing import Any

import pytest

from tests.browser.conftest import Dashboard

pytestmark = pytest.mark.browser


def call(page: Any, dashboard: Dashboard, module: str, function: str, *arguments: Any) -> Any:
    """Result of a function of one of the page's modules."""
    if page.url == "about:blank":
        page.goto(dashboard.url())
    return page.evaluate(
        "async ([module, name, values]) => (await import(module))[name](...values)",
        [f"shoal/{module}.js", function, list(arguments)],
    )


def test_curves_of_two_runs_are_put_on_one_axis(page: Any, dashboard: Dashboard) -> None:
    first = {"x": {"step": [0, 2, 4], "tokens": [0, 10, 20], "time_s": [0, 1, 2]}, "values": [1, 3, 7]}
    second = {"x": {"step": [1, 3], "tokens": [5, 15], "time_s": [5, 6]}, "values": [10, 20]}
    found = call(page, dashboard, "rollouts/compare_align", "aligned", [first, second], "step")
    assert found["x"] == [0, 1, 2, 3, 4]
    assert found["values"][0] == [1, 2, 3, 5, 7]  # between two points, on the line between them
    assert found["values"][1] == [None, 10, 15, 20, None]  # beyond its ends a run has no value
    assert call(page, dashboard, "rollouts/compare_align", "aligned", [first, second], "time")["x"] == [0, 1, 2, 5, 6]


def test_a_value_that_is_missing_is_bridged(page: Any, dashboard: Dashboard) -> None:
    curve = {"x": {"step": [0, 1, 2], "tokens": [], "time_s": []}, "values": [1, None, 3]}
    other = {"x": {"step": [1], "tokens": [], "time_s": []}, "values": [8]}
    found = call(page, dashboard, "rollouts/compare_align", "aligned", [curve, other], "step")
    assert found["values"] == [[1, 2, 3], [None, 8, None]]


def test_a_million_groups_have_a_pixel_each(page: Any, dashboard: Dashboard) -> None:
    few = call(page, dashboard, "charts/pixel_grid", "gridShape", 554, 1340)
    assert (few["cell"], few["gap"], few["across"], few["height"]) == (12, 1, 111, 60)
    many = call(page, dashboard, "charts/pixel_grid", "gridShape", 128_000, 1340)
    assert many["cell"] >= 1
    assert many["across"] * (many["height"] / many["cell"]) >= 128_000
    assert many["height"] <= 320
    assert call(page, dashboard, "charts/pixel_grid", "gridShape", 1_000_000, 1340)["cell"] == 1


def test_zoom_keeps_the_time_under_the_pointer_and_stays_in_the_run(page: Any, dashboard: Dashboard) -> None:
    extent, view = [100, 200], {"from": 100, "to": 200}
    assert call(page, dashboard, "timeline/model", "zoomView", view, extent, 0.5, 150) == {"from": 125, "to": 175}
    assert call(page, dashboard, "timeline/model", "zoomView", view, extent, 0.5, 100) == {"from": 100, "to": 150}
    assert call(page, dashboard, "timeline/model", "zoomView", view, extent, 3, 150) == {"from": 100, "to": 200}
    assert call(page, dashboard, "timeline/model", "panView", {"from": 110, "to": 130}, extent, -50) == {
        "from": 100,
        "to": 120,
    }
    tiny = call(page, dashboard, "timeline/model", "zoomView", {"from": 150, "to": 150.01}, extent, 1e-6, 150)
    assert tiny["to"] - tiny["from"] == pytest.approx(0.002)


def test_steps_of_several_answers_are_each_told_once(page: Any, dashboard: Dashboard) -> None:
    def step(number: int, start: float, end: float) -> dict[str, Any]:
        return {"step": number, "start": start, "end": end}

    # The whole run, and a part of it that was asked for later: where both have a step, the later answer holds.
    answers = [{"steps": [step(0, 0, 10), step(1, 15, 19)]}, {"steps": [step(1, 11, 20), step(0, 0, 11)]}, None]
    windows = call(page, dashboard, "timeline/model", "stepWindows", answers)
    assert [(each["step"], each["start"], each["end"]) for each in windows] == [(0, 0, 11), (1, 11, 20)]
    assert call(page, dashboard, "timeline/model", "stepView", windows, 1, [0, 30]) == {"from": 11, "to": 20}
    assert call(page, dashboard, "timeline/model", "stepView", windows, 7, [0, 30]) == {"from": 11, "to": 20}
    assert call(page, dashboard, "timeline/model", "stepView", windows, 0, [0, 30]) == {"from": 0, "to": 11}


def test_axis_has_round_times(page: Any, dashboard: Dashboard) -> None:
    ticks = call(page, dashboard, "timeline/model", "axisTicks", {"from": 1000, "to": 1100}, 1100, 1000)
    assert [(tick["time"] - 1000, tick["label"]) for tick in ticks][:4] == [
        (0, "0 s"),
        (10, "10 s"),
        (20, "20 s"),
        (30, "30 s"),
    ]
    assert ticks[-1]["label"] == "1:40"
    fine = call(page, dashboard, "timeline/model", "axisTicks", {"from": 1000, "to": 1000.05}, 1100, 1000)
    assert fine[1]["label"] == "0.005 s"
