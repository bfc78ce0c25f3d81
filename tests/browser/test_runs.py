"""The list of runs: order, search, keyboard, and choosing some to compare."""

import re
from typing import Any

import pytest

from tests.browser.conftest import Dashboard

pytestmark = pytest.mark.browser


def shown_runs(page: Any) -> list[str]:
    found: list[str] = page.get_by_test_id("run-row").evaluate_all("rows => rows.map((row) => row.dataset.run)")
    return found


def open_runs(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/"))
    page.get_by_test_id("run-row").first.wait_for()


def test_every_run_is_listed_and_leads_to_its_overview(page: Any, dashboard: Dashboard) -> None:
    open_runs(page, dashboard)
    assert sorted(shown_runs(page)) == dashboard.runs
    row = page.locator('[data-run="healthy"]')
    assert "finished" in row.inner_text()
    assert re.search(r"40 / 40", row.inner_text())
    row.get_by_text("finished").click()  # anywhere on the row
    page.wait_for_url(re.compile("#/r/healthy/overview"))


def test_the_header_sorts_and_the_address_keeps_it(page: Any, dashboard: Dashboard) -> None:
    open_runs(page, dashboard)
    page.locator('[data-sort="run"]').click()
    page.wait_for_url(re.compile("sort=-run"))
    assert shown_runs(page) == sorted(dashboard.runs, reverse=True)
    page.locator('[data-sort="run"]').click()
    page.wait_for_url(re.compile("sort=run"))
    page.reload()
    page.get_by_test_id("run-row").first.wait_for()
    assert shown_runs(page) == dashboard.runs
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"


def test_search_by_key_narrows_the_list(page: Any, dashboard: Dashboard) -> None:
    open_runs(page, dashboard)
    page.keyboard.press("/")
    page.keyboard.type("stale")
    page.locator('[data-run="healthy"]').wait_for(state="detached")
    assert shown_runs(page) == ["stale_weights"]
    page.reload()
    page.get_by_test_id("run-row").first.wait_for()
    assert page.get_by_test_id("runs-find").input_value() == "stale"
    page.get_by_test_id("runs-find").fill("nothing like it")
    page.get_by_text("No run of that name.").wait_for()


def test_chosen_runs_are_compared(page: Any, dashboard: Dashboard) -> None:
    open_runs(page, dashboard)
    button = page.get_by_test_id("compare-button")
    assert button.is_disabled()
    page.get_by_label("Compare healthy").check()
    page.get_by_label("Compare slow_sampler").check()
    page.wait_for_url(re.compile("pick=healthy%2Cslow_sampler"))
    page.get_by_label("Compare healthy").uncheck()
    page.get_by_label("Compare healthy").check()
    assert button.inner_text() == "Compare 2 runs"
    button.click()
    page.wait_for_url(re.compile("#/compare.runs=slow_sampler%2Chealthy"))


def test_the_keyboard_moves_chooses_and_opens(page: Any, dashboard: Dashboard) -> None:
    open_runs(page, dashboard)
    runs = shown_runs(page)
    page.keyboard.press("j")
    page.locator(f'tr.selected[data-run="{runs[0]}"]').wait_for()
    page.keyboard.press("j")
    page.locator(f'tr.selected[data-run="{runs[1]}"]').wait_for()
    page.keyboard.press("x")
    page.locator(f'tr.chosen[data-run="{runs[1]}"]').wait_for()
    page.keyboard.press("k")
    page.locator(f'tr.selected[data-run="{runs[0]}"]').wait_for()
    page.keyboard.press("x")
    page.locator(f'tr.chosen[data-run="{runs[0]}"]').wait_for()
    page.keyboard.press("c")
    page.wait_for_url(re.compile("#/compare"))
    page.go_back()
    page.locator(f'tr.selected[data-run="{runs[0]}"]').wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(f"#/r/{runs[0]}/overview"))
