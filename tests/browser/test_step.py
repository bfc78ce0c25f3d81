"""A step: the grid of groups and samples, its orders and colours, histograms, funnel, and the way on from there."""

import re
from typing import Any

import pytest

from tests.browser.conftest import Dashboard
from tests.browser.waiting import until

pytestmark = pytest.mark.browser


def shown_groups(page: Any) -> list[str]:
    found: list[str] = page.get_by_test_id("group-row").evaluate_all("rows => rows.map((row) => row.dataset.group)")
    return found


def open_step(page: Any, dashboard: Dashboard, fragment: str = "/r/healthy/step/train/24") -> None:
    page.goto(dashboard.url(fragment))
    page.get_by_test_id("grid").wait_for()


def test_the_grid_has_a_row_for_each_group_and_a_cell_for_each_sample(page: Any, dashboard: Dashboard) -> None:
    open_step(page, dashboard)
    groups = page.get_by_test_id("group-row").count()
    assert groups >= 12
    assert page.locator("[data-cell]").count() == groups * 8
    colours = page.locator("[data-cell]").evaluate_all(
        "cells => new Set(cells.map((cell) => cell.style.backgroundColor)).size"
    )
    assert colours == 2  # rewards of 0 and of 1


def test_the_orders(page: Any, dashboard: Dashboard) -> None:
    open_step(page, dashboard)
    variance = shown_groups(page)
    page.get_by_test_id("sort").get_by_text("reward").click()
    page.wait_for_url(re.compile("sort=reward"))
    means = [float(text) for text in page.locator("[data-testid=group-row] .grid-mean").all_inner_texts()]
    assert means == sorted(means)
    page.get_by_test_id("sort").get_by_text("dispatch").click()
    page.wait_for_url(re.compile("sort=dispatch"))
    dispatched = shown_groups(page)
    assert dispatched == sorted(dispatched)
    assert sorted(variance) == dispatched
    page.reload()
    page.get_by_test_id("grid").wait_for()
    assert shown_groups(page) == dispatched


def test_colouring_by_length_and_advantage(page: Any, dashboard: Dashboard) -> None:
    open_step(page, dashboard)
    before = page.locator("[data-cell]").first.evaluate("cell => cell.style.backgroundColor")
    page.get_by_test_id("colour").get_by_text("length").click()
    page.wait_for_url(re.compile("colour=length"))
    page.get_by_test_id("scale").get_by_text("length").wait_for()
    assert page.locator("[data-cell]").first.evaluate("cell => cell.style.backgroundColor") != before
    page.get_by_test_id("colour").get_by_text("advantage").click()
    page.get_by_test_id("scale").get_by_text("advantage").wait_for()


def test_hovering_a_cell_tells_of_its_completion(page: Any, dashboard: Dashboard) -> None:
    open_step(page, dashboard)
    page.locator("[data-cell]").nth(3).hover()
    card = page.get_by_test_id("cell-card")
    card.wait_for()
    words = card.inner_text()
    assert "What is" in words
    assert re.search(r"advantage\s+−?\d", words)
    assert re.search(r"sample\s+3", words)
    page.mouse.move(5, 5)
    card.wait_for(state="detached")


def test_a_cell_leads_to_its_completion_and_a_row_to_its_group(page: Any, dashboard: Dashboard) -> None:
    open_step(page, dashboard)
    group = shown_groups(page)[0]
    page.locator("[data-cell]").nth(2).click()
    page.wait_for_url(re.compile(rf"#/r/healthy/rollout/train/24/{group}/2$"))
    page.go_back()
    page.get_by_test_id("group-link").first.click()
    page.wait_for_url(re.compile(rf"#/r/healthy/group/train/24/{group}$"))


def test_the_keyboard_walks_groups_and_completions(page: Any, dashboard: Dashboard) -> None:
    open_step(page, dashboard)
    groups = shown_groups(page)
    for key in "JJKJ":
        page.keyboard.press(key)
    page.locator(f'.grid-row.selected[data-group="{groups[1]}"]').wait_for()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.locator('.cell.chosen[data-cell="0"]').wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(rf"rollout/train/24/{groups[1]}/0$"))


def test_next_and_previous_by_key_and_button(page: Any, dashboard: Dashboard) -> None:
    open_step(page, dashboard, "/r/healthy/step/train/24?sort=dispatch")
    page.keyboard.press("n")
    page.wait_for_url(re.compile(r"step/train/25\?sort=dispatch"))
    page.locator('[data-testid=step-page][data-step="25"]').wait_for()
    page.keyboard.press("p")
    page.locator('[data-testid=step-page][data-step="24"]').wait_for()
    page.get_by_test_id("next").click()
    page.locator('[data-testid=step-page][data-step="25"]').wait_for()
    page.get_by_test_id("step-select").select_option("3")
    page.locator('[data-testid=step-page][data-step="3"]').wait_for()
    page.goto(dashboard.url("/r/healthy/step/train/39"))
    page.locator('[data-testid=step-page][data-step="39"]').wait_for()
    assert page.get_by_test_id("next").count() == 0


def test_what_a_step_took_leads_to_its_part_of_the_timeline(page: Any, dashboard: Dashboard) -> None:
    for way in ("took", "to-timeline", "t"):
        open_step(page, dashboard, "/r/healthy/step/train/24")
        if way == "t":
            page.keyboard.press(way)
        else:
            page.get_by_test_id(way).click()
        page.wait_for_url(re.compile("#/r/healthy/timeline"))
        until(page, lambda: page.get_by_test_id("pick-step").input_value() == "24", "the step is in sight")


def test_steps_alone_leads_to_the_newest(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/steps"))
    page.wait_for_url(re.compile(r"#/r/healthy/step/train/39$"))
    page.get_by_test_id("phase").get_by_text("evaluation").click()
    page.wait_for_url(re.compile(r"#/r/healthy/step/eval/40$"))
    page.locator('[data-testid=step-page][data-phase="eval"]').wait_for()
    assert page.get_by_test_id("histogram-advantage").count() == 0
    assert "pass@1" in page.get_by_test_id("figures").inner_text()


def test_the_funnel_goes_from_dispatched_to_trained(page: Any, dashboard: Dashboard) -> None:
    open_step(page, dashboard)
    funnel = page.get_by_test_id("funnel")
    counts = [int(text) for text in funnel.locator("li > b").all_inner_texts()]
    assert counts[:3] == sorted(counts[:3], reverse=True)
    assert counts[2] == 12
    assert f"−{counts[1] - counts[2]} equal rewards" in funnel.locator('[data-stage="trained"]').inner_text()


def test_histograms_tell_their_bars_and_lead_to_the_completions(page: Any, dashboard: Dashboard) -> None:
    open_step(page, dashboard)
    lengths = page.get_by_test_id("histogram-length")
    assert "truncated" in lengths.inner_text()
    bar = lengths.locator(".bar").last
    bar.locator(".reach").hover()
    lengths.get_by_text(re.compile(r"\d+ to \d+: \d+")).wait_for()
    bar.locator(".reach").click()
    page.wait_for_url(re.compile("#/r/healthy/rollouts"))
    wanted = page.evaluate("new URLSearchParams(location.hash.split('?')[1]).get('filter')")
    assert wanted.startswith("phase=train & step:24-24 & length>=")


def test_all_metrics_unfold(page: Any, dashboard: Dashboard) -> None:
    open_step(page, dashboard)
    page.get_by_test_id("all-metrics").click()
    page.get_by_test_id("metric-list").get_by_text("train/grad_norm").wait_for()
    page.get_by_test_id("all-metrics").click()
    page.get_by_test_id("metric-list").wait_for(state="detached")


def test_a_step_that_is_not_there_is_told(page: Any, dashboard: Dashboard, complaints: Any) -> None:
    complaints.expect("status of 404")  # Chromium notes it in the console
    page.goto(dashboard.url("/r/healthy/step/train/999"))
    page.get_by_role("alert").wait_for()
    assert page.get_by_test_id("step-select").is_visible()
