"""The doctor: each planted fault is told with its evidence; a healthy run is told so."""

import re
from typing import Any

import pytest

from tests.browser.conftest import Dashboard
from tests.browser.waiting import until

pytestmark = pytest.mark.browser


def test_healthy_run_is_told_so(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/doctor"))
    well = page.get_by_test_id("doctor-well")
    well.wait_for()
    assert "All is well at step 40." in well.inner_text()
    rules = page.get_by_test_id("silent-rules").locator("li")
    assert rules.count() >= 20
    assert f"{rules.count()} rules" in well.inner_text()


def test_slow_sampler_is_named_with_evidence_causes_and_advice(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/slow_sampler/doctor"))
    finding = page.get_by_test_id("finding").first
    finding.wait_for()
    assert "sampler-1" in finding.locator("h2").inner_text()
    assert re.search(r"\d+ tokens/s", finding.locator(".evidence").inner_text())
    assert finding.locator("ol li").count() >= 2
    assert finding.locator("ul li code").count() >= 1  # keys of the configuration are set apart
    assert finding.get_by_test_id("finding-chart").locator("canvas").count() == 1
    assert "worth a look" in page.get_by_test_id("doctor-summary").inner_text()
    assert page.get_by_test_id("doctor-well").count() == 0
    silent = page.get_by_test_id("silent-rules").inner_text()
    assert finding.get_attribute("data-rule").replace("_", " ") not in silent


def test_errors_come_before_warnings_and_have_a_glyph(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/stale_weights/doctor"))
    page.get_by_test_id("finding").first.wait_for()
    order = {"error": 0, "warning": 1, "info": 2}
    severities = [
        next(word for word in order if word in (card.get_attribute("class") or "").split())
        for card in page.get_by_test_id("finding").all()
    ]
    assert severities == sorted(severities, key=lambda word: order[word])
    glyphs = page.locator(".finding > header .glyph").all_inner_texts()
    assert glyphs == [{"error": "✖", "warning": "▲", "info": "i"}[word] for word in severities]


def test_keys_go_from_finding_to_finding(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/slow_sampler/doctor"))
    cards = page.get_by_test_id("finding")
    cards.nth(1).wait_for()
    page.keyboard.press("j")
    page.keyboard.press("j")
    focused = "document.activeElement.dataset.rule"
    assert page.evaluate(focused) == cards.nth(1).get_attribute("data-rule")
    page.keyboard.press("k")
    assert page.evaluate(focused) == cards.first.get_attribute("data-rule")


def test_links_and_chart_lead_to_the_evidence(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/slow_sampler/doctor"))
    finding = page.get_by_test_id("finding").first
    since = finding.locator(".since")
    since.wait_for()
    assert re.search(r"#/r/slow_sampler/step/train/\d+$", since.get_attribute("href"))
    finding.locator(".finding-links a").first.click()
    page.wait_for_url(re.compile("#/r/slow_sampler/timeline"))
    page.go_back()
    plot = page.get_by_test_id("finding-chart").first.locator(".u-over")
    plot.wait_for()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.up()
    page.wait_for_url(re.compile(r"#/r/slow_sampler/step/train/(19|20)"))


def test_a_rule_in_the_address_is_brought_into_view(page: Any, dashboard: Dashboard) -> None:
    page.set_viewport_size({"width": 1280, "height": 500})
    page.goto(dashboard.url("/r/slow_sampler/doctor?rule=learner_waits"))
    card = page.locator("#finding-learner_waits")
    card.wait_for()

    def in_view() -> bool:
        box = card.bounding_box()
        return bool(120 <= box["y"] < 500)

    until(page, in_view, "the card in view")
