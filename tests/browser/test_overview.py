"""The overview: tiles with their state, charts with one crosshair, axes, smoothing, click and brush."""

import re
from typing import Any

import pytest

from tests.browser.conftest import Dashboard

pytestmark = pytest.mark.browser


def over(page: Any, chart: str) -> Any:
    """The plot area of a chart, once it is drawn and in sight."""
    area = page.get_by_test_id(f"chart-{chart}").locator(".u-over")
    area.scroll_into_view_if_needed()
    return area


def test_one_sentence_says_whether_it_learns_and_leads_to_what_shows_it(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/broken_grader/overview"))
    verdict = page.get_by_test_id("verdict")
    verdict.wait_for()
    text = verdict.inner_text()
    points = r"\S.*: held-out accuracy [\d.]+ % -> [\d.]+ %, [+-][\d.]+ points \(95 %: .* to .*\), (and|but) "
    assert re.match(points, text)
    assert "wrong: The grader fails" in text
    assert text.endswith(".")
    targets = [link.get_attribute("href") for link in verdict.locator("a").all()]
    assert targets == [f"#/r/broken_grader/{page_}" for page_ in ("steps", "step/eval/40", "doctor")]
    verdict.locator("a").nth(2).click()
    page.get_by_text("The grader fails").first.wait_for()
    page.goto(dashboard.url("/r/healthy/overview"))
    page.get_by_test_id("verdict").get_by_text("nothing is wrong").wait_for()


def test_tiles_show_value_and_state(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/stale_weights/overview"))
    gap = page.get_by_test_id("tile-gap")
    gap.wait_for()
    assert page.get_by_test_id("tiles").locator(".tile").count() == 6
    assert gap.get_attribute("data-state") == "alarm"
    assert "✖" in gap.inner_text()  # not by colour alone
    assert "alarm above" in gap.get_attribute("title")
    assert page.get_by_test_id("tile-accuracy").locator(".tile-value").inner_text() == "66.7%"
    page.goto(dashboard.url("/r/healthy/overview"))
    page.locator('[data-testid=tile-gap][data-state="ok"]').wait_for()


def test_all_charts_show_the_same_stretch_of_the_run(page: Any, dashboard: Dashboard) -> None:
    """Evaluations lie at 0 to 40, training steps at 0 to 39: of all charts the x axis ends at 40."""
    page.goto(dashboard.url("/r/healthy/overview"))
    for chart, last in (("reward", 39), ("evaluations", 40)):
        box = page.get_by_test_id(f"chart-{chart}").locator(".chart-box")
        box.locator("canvas").wait_for()
        box.focus()
        page.keyboard.press("End")
        page.locator(f"[data-testid=chart-{chart}] .chart-box[aria-valuetext^='step {last}:']").wait_for()
        at, width = box.evaluate(
            "box => [new DOMMatrix(getComputedStyle(box.querySelector('.u-cursor-x')).transform).e,"
            " box.querySelector('.u-over').clientWidth]"
        )
        assert at == pytest.approx(last / 40 * width, abs=1.5), chart


def test_charts_stand_in_their_groups(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/overview"))
    page.get_by_test_id("chart-reward").locator("canvas").wait_for()
    for group, chart in {
        "learning": "evaluations",
        "stability": "entropy",
        "off-policy": "gap",
        "system": "step_time",
    }.items():
        assert page.get_by_test_id(f"group-{group}").get_by_test_id(f"chart-{chart}").count() == 1
    help_text = page.get_by_test_id("chart-gap").get_by_role("note")
    help_text.hover()
    page.get_by_role("tooltip").get_by_text("the same weights on both sides").wait_for()


def test_one_crosshair_links_all_charts(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/overview"))
    page.get_by_test_id("chart-reward").locator("b").filter(has_text=re.compile(r"\d")).wait_for()
    last = page.get_by_test_id("chart-reward").locator("b").inner_text()
    box = over(page, "entropy").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 40)
    for chart in ("entropy", "reward", "gap"):
        page.get_by_test_id(f"chart-{chart}").locator(".chart-place").get_by_text("step 0").wait_for()
    assert page.get_by_test_id("chart-reward").locator("b").inner_text() != last
    page.mouse.move(5, 5)
    page.get_by_test_id("chart-reward").locator(".chart-place:empty").wait_for(state="attached")
    assert page.get_by_test_id("chart-reward").locator("b").inner_text() == last


def test_a_click_on_a_chart_opens_the_step(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/overview"))
    area = over(page, "reward")
    width = area.bounding_box()["width"]
    area.click(position={"x": width / 2, "y": 30})
    page.wait_for_url(re.compile(r"#/r/healthy/step/train/(19|20)$"))
    page.go_back()
    area = over(page, "evaluations")
    area.click(position={"x": area.bounding_box()["width"] / 2, "y": 30})
    page.wait_for_url(re.compile(r"#/r/healthy/step/eval/20$"))


def test_a_brush_narrows_all_charts_and_is_kept_in_the_address(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/overview"))
    box = over(page, "reward").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 30, steps=6)
    page.mouse.up()
    page.wait_for_url(re.compile(r"from=1\d&to=3\d"))
    found = re.search(r"from=(\d+)&to=(\d+)", page.url)
    assert found
    first, last = found.groups()
    page.reload()
    page.get_by_test_id("controls").get_by_text(f"steps {first} to {last}").wait_for()
    box = over(page, "entropy").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 30)
    page.get_by_test_id("chart-entropy").locator(".chart-place").get_by_text(f"step {first}").wait_for()
    page.get_by_test_id("whole-run").click()
    page.wait_for_url(re.compile(r"overview$"))


def test_axis_and_smoothing_are_in_the_address(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/overview"))
    over(page, "reward")
    page.get_by_test_id("chart-reward").locator("b").filter(has_text=re.compile(r"\d")).wait_for()
    raw = page.get_by_test_id("chart-reward").locator("b").inner_text()
    page.get_by_test_id("axis").get_by_text("tokens").click()
    page.wait_for_url(re.compile("x=tokens"))
    page.get_by_test_id("smooth").fill("0.9")
    page.wait_for_url(re.compile(r"x=tokens&smooth=0\.9"))
    page.get_by_test_id("chart-reward").locator("b").filter(has_not_text=raw).wait_for()
    page.reload()
    box = over(page, "reward").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 30)
    page.get_by_test_id("chart-reward").locator(".chart-place").get_by_text(
        re.compile(r"tokens \d+(\.\d+)?k")
    ).wait_for()
    page.get_by_test_id("axis").get_by_text("time").click()
    page.wait_for_url(re.compile("x=time"))
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 30)
    page.get_by_test_id("chart-reward").locator(".chart-place").get_by_text(re.compile(r"after \d+m")).wait_for()


def test_a_range_without_steps_says_so(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/overview?from=900&to=950"))
    page.get_by_text("No step in this range.").wait_for()
