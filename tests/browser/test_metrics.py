"""The page of all metrics: what is found, by words and by a regular expression, and what the charts show."""

from typing import Any

import pytest

from tests.browser.answers import ask
from tests.browser.conftest import Dashboard

pytestmark = pytest.mark.browser
RUN = "healthy"


def _names(page: Any) -> list[str]:
    charts = page.get_by_test_id("metric-chart")
    return [charts.nth(i).get_attribute("data-metric") for i in range(charts.count())]


def _wait_for_count(page: Any, count: int) -> None:
    page.wait_for_function("n => document.querySelectorAll('[data-testid=metric-chart]').length === n", arg=count)


def test_every_metric_has_a_chart_and_can_be_found(dashboard: Dashboard, page: Any) -> None:
    known = [metric["name"] for metric in ask(dashboard.origin, f"runs/{RUN}/metric-charts?points=1")["metrics"]]
    page.goto(dashboard.url(f"/r/{RUN}/overview"))
    page.get_by_test_id("nav-metrics").click()
    _wait_for_count(page, min(len(known), 48))
    assert f"{len(known)} of {len(known)} metrics" in page.get_by_test_id("metric-count").inner_text()
    if len(known) > 48:
        page.get_by_test_id("more-metrics").click()
        _wait_for_count(page, min(len(known), 96))
    page.keyboard.press("/")
    page.keyboard.type("entropy train")
    wanted = [name for name in known if name.startswith("train/") and "entropy" in name]
    assert wanted
    _wait_for_count(page, len(wanted))
    assert _names(page) == wanted
    page.get_by_test_id("metric-regex").check()
    page.get_by_test_id("metric-search").fill(r"^(reward/mean|eval/pass_at_\d+)$")
    _wait_for_count(page, 1 + sum(name.startswith("eval/pass_at_") for name in known))
    assert "q=" in page.url
    page.reload()
    _wait_for_count(page, 1 + sum(name.startswith("eval/pass_at_") for name in known))
    page.get_by_test_id("metric-search").fill("(")
    page.get_by_text("this is no regular expression").wait_for()
    _wait_for_count(page, 0)


def test_a_click_on_a_chart_opens_its_step(dashboard: Dashboard, page: Any) -> None:
    page.goto(dashboard.url(f"/r/{RUN}/metrics?q=reward/mean"))
    _wait_for_count(page, 1)
    plot = page.get_by_test_id("metric-chart").locator(".u-over")
    box = plot.bounding_box()
    plot.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    page.wait_for_function("() => /step\\/train\\/\\d+/.test(location.hash)")
