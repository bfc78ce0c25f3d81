"""The timeline: zoom, pan, measure, choose, highlight; its window in the address."""

import json
import math
import re
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.browser.conftest import Dashboard
from tests.browser.waiting import until

pytestmark = pytest.mark.browser


def open_timeline(page: Any, dashboard: Dashboard, run: str = "slow_sampler", query: str = "") -> Any:
    """The canvas's bounding box, once the lanes are drawn."""
    page.goto(dashboard.url(f"/r/{run}/timeline{query}"))
    page.get_by_test_id("lane-sampler-1").wait_for()
    until(page, lambda: page.evaluate("document.querySelector('.gantt-canvas').width") > 300, "a drawn canvas")
    return page.locator(".gantt-canvas").first.bounding_box()


def params(page: Any) -> dict[str, str]:
    _, _, query = page.url.partition("?")
    return {name: values[0] for name, values in parse_qs(query).items()}


def window_seconds(page: Any) -> tuple[float, float]:
    """What the toolbar says is in sight."""
    found = re.match(r"([\d.]+) – ([\d.]+) s", page.get_by_test_id("window").inner_text())
    assert found is not None
    return float(found[1]), float(found[2])


RUN_BEGAN_S = 1_790_000_000.0
"""Of the demo runs, which are seeded."""
WINDOWS = {
    "zoomed": lambda start, end: end - start < 600,
    "whole": lambda start, end: start == 0 and end > 880,
    "one step": lambda start, end: end - start < 40,
}


def seconds_in_sight(page: Any) -> float:
    start, end = window_seconds(page)
    return end - start


def await_window(page: Any, kind: str) -> None:
    until(page, lambda: WINDOWS[kind](*window_seconds(page)), kind)


def await_address(page: Any, name: str, *, there: bool = True) -> None:
    until(page, lambda: (name in params(page)) == there, f"{name} in the address: {there}")


def picked_step(page: Any) -> str:
    return str(page.get_by_test_id("pick-step").input_value())


def test_lanes_are_in_order_with_their_use_of_time(page: Any, dashboard: Dashboard) -> None:
    open_timeline(page, dashboard)
    names = page.locator(".gantt-actor").all_inner_texts()
    assert names == ["controller", "learner-0", "learner-1", "sampler-0", "sampler-1", "reward-0"]
    bars = page.get_by_test_id("utilisation")
    assert bars.count() == 6
    assert "train" in bars.nth(1).get_attribute("title")
    assert "generate" in bars.nth(3).get_attribute("title")


def test_wheel_zooms_at_the_pointer_and_a_double_click_shows_all(page: Any, dashboard: Dashboard) -> None:
    box = open_timeline(page, dashboard)
    await_window(page, "whole")
    whole = window_seconds(page)
    quarter = whole[0] + 0.25 * (whole[1] - whole[0])
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 70)
    for _ in range(8):
        page.mouse.wheel(0, -120)
    await_window(page, "zoomed")
    start, end = window_seconds(page)
    assert start + 0.25 * (end - start) == pytest.approx(quarter, abs=1.0)  # what was under the pointer still is
    await_address(page, "from")
    page.mouse.dblclick(box["x"] + 0.5 * box["width"], box["y"] + 8)
    await_window(page, "whole")
    await_address(page, "from", there=False)


def test_window_survives_a_reload(page: Any, dashboard: Dashboard) -> None:
    box = open_timeline(page, dashboard)
    await_window(page, "whole")
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 70)
    wanted = math.exp(-0.24 * 8) * seconds_in_sight(page)
    for _ in range(8):
        page.mouse.wheel(0, -120)
    until(page, lambda: seconds_in_sight(page) == pytest.approx(wanted, abs=0.2), "all turns of the wheel")
    before = window_seconds(page)
    until(page, lambda: float(params(page).get("from", 0)) == pytest.approx(RUN_BEGAN_S + before[0], abs=0.1))
    page.reload()
    page.get_by_test_id("lane-sampler-1").wait_for()
    await_window(page, "zoomed")
    assert window_seconds(page) == pytest.approx(before, abs=0.11)


def test_drag_pans_by_what_was_dragged(page: Any, dashboard: Dashboard) -> None:
    box = open_timeline(page, dashboard, query="?from=1790000300&to=1790000400")
    until(page, lambda: window_seconds(page) == (300.0, 400.0))
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 8, steps=4)
    page.mouse.up()
    until(page, lambda: window_seconds(page) == pytest.approx((320.0, 420.0), abs=0.5))
    assert params(page).get("span") is None  # a drag is no click


def test_shift_drag_measures_and_does_not_move(page: Any, dashboard: Dashboard) -> None:
    box = open_timeline(page, dashboard, query="?from=1790000300&to=1790000400")
    until(page, lambda: window_seconds(page) == (300.0, 400.0))
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + 0.2 * box["width"], box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 8, steps=3)
    page.mouse.up()
    page.keyboard.up("Shift")
    measured = page.get_by_test_id("measure").inner_text()
    assert float(measured.removesuffix(" s")) == pytest.approx(30.0, abs=0.2)
    assert window_seconds(page) == (300.0, 400.0)


def test_keys_zoom_pan_and_go_from_step_to_step(page: Any, dashboard: Dashboard) -> None:
    open_timeline(page, dashboard)
    page.keyboard.press("+")
    page.keyboard.press("+")
    await_window(page, "zoomed")
    before = window_seconds(page)
    page.keyboard.press("ArrowRight")
    until(page, lambda: window_seconds(page)[0] > before[0] + 1)
    page.keyboard.press("0")
    await_window(page, "whole")
    page.keyboard.press("n")
    await_window(page, "one step")
    assert picked_step(page) == "0"
    await_address(page, "to")
    page.keyboard.press("n")
    until(page, lambda: picked_step(page) == "1")
    page.keyboard.press("p")
    until(page, lambda: picked_step(page) == "0")


def test_buttons_do_what_the_keys_do(page: Any, dashboard: Dashboard) -> None:
    open_timeline(page, dashboard)
    page.get_by_test_id("zoom-in").click()
    page.get_by_test_id("zoom-in").click()
    await_window(page, "zoomed")
    page.get_by_test_id("whole").click()
    await_window(page, "whole")


def test_hover_tells_and_a_click_opens_the_groups(page: Any, dashboard: Dashboard) -> None:
    box = open_timeline(page, dashboard)
    page.get_by_test_id("pick-step").select_option("30")
    await_window(page, "one step")
    await_address(page, "from")
    lane = page.get_by_test_id("lane-learner-0").bounding_box()
    y = lane["y"] + lane["height"] / 2
    page.mouse.move(box["x"] + 0.97 * box["width"], y)  # a step ends with training
    card = page.get_by_test_id("span-card")
    card.wait_for()
    assert "train" in card.inner_text()
    assert "learner-0" in card.inner_text()
    page.mouse.click(box["x"] + 0.97 * box["width"], y)
    links = page.get_by_test_id("span-groups").locator("a")
    links.first.wait_for()
    assert links.count() == 12
    assert "/r/slow_sampler/group/train/30/" in links.first.get_attribute("href")
    assert "span" in params(page)
    page.reload()
    page.get_by_test_id("span-groups").wait_for()  # the chosen span is in the address
    page.keyboard.press("Escape")
    page.get_by_test_id("span-panel").wait_for(state="detached")  # an empty box would tell nothing


def test_waits_name_the_slow_sampler_and_light_its_spans(page: Any, dashboard: Dashboard) -> None:
    open_timeline(page, dashboard)
    row = page.get_by_test_id("wait").filter(has_text=re.compile(r"learner-0\s*for\s*sampler-1"))
    row.wait_for()
    row.hover()
    dimmed = page.locator(".gantt-name.dim .gantt-actor")
    assert set(dimmed.all_inner_texts()) == {"controller", "learner-1", "sampler-0", "reward-0"}
    row.click()
    page.mouse.move(5, 5)
    page.locator(".wait-row.active").wait_for()
    assert dimmed.count() == 4  # stays lit without the pointer
    row.click()
    page.mouse.move(5, 5)
    until(page, lambda: dimmed.count() == 0)


def test_steps_tell_what_they_took_and_zoom_there(page: Any, dashboard: Dashboard) -> None:
    open_timeline(page, dashboard)
    steps = page.get_by_test_id("step-time")
    steps.last.wait_for()
    assert steps.count() == 8
    assert "step 39" in steps.last.inner_text()
    steps.last.click()
    await_window(page, "one step")
    assert picked_step(page) == "39"
    until(page, lambda: steps.count() == 1)


def test_critical_path_and_a_second_step_are_in_the_address(page: Any, dashboard: Dashboard) -> None:
    open_timeline(page, dashboard, query="?from=30&to=30")
    await_window(page, "one step")  # small numbers are steps
    assert picked_step(page) == "30"
    page.get_by_test_id("path").click()
    page.get_by_test_id("pick-other").select_option("5")
    second = page.get_by_test_id("second-step")
    second.locator("canvas").wait_for()
    assert "step 5" in second.inner_text()
    assert params(page)["path"] == "1"
    assert params(page)["with"] == "5"
    page.reload()
    page.get_by_test_id("second-step").locator("canvas").wait_for()
    assert page.get_by_test_id("path").get_attribute("aria-pressed") == "true"


def test_perfetto_gets_a_trace(page: Any, dashboard: Dashboard) -> None:
    open_timeline(page, dashboard)
    # Beside the page, wherever that is: a proxy may serve it below a path of its own.
    assert page.get_by_test_id("perfetto").get_attribute("href") == "./api/runs/slow_sampler/trace.json"
    with page.expect_download() as waiting:
        page.get_by_test_id("perfetto").click()
    download = waiting.value
    assert download.suggested_filename == "slow_sampler.trace.json"
    with open(download.path(), encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) > 1000


def test_canvas_shows_colours_of_both_themes(page: Any, dashboard: Dashboard) -> None:
    open_timeline(page, dashboard)
    pixels = (  # of a copy: reading a canvas on the screen slows it down, of which Chromium warns
        "() => { const canvas = document.querySelector('.gantt-canvas');"
        " const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});"
        " copy.drawImage(canvas, 0, 0);"
        " return copy.getImageData(0, 0, canvas.width, canvas.height).data.reduce((sum, value) => sum + value, 0); }"
    )
    light = page.evaluate(pixels)
    page.keyboard.press("d")
    until(page, lambda: page.evaluate(pixels) < light, "dark lanes are darker")
