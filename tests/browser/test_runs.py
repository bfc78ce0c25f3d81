"""The list of runs: order, search, keyboard, and choosing some to compare."""

import re
from typing import Any

import pytest

from tests.browser.answers import ask
from tests.browser.conftest import Dashboard
from tests.browser.waiting import until

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


def test_the_list_tells_what_the_doctor_found_and_how_the_reward_went(page: Any, dashboard: Dashboard) -> None:
    open_runs(page, dashboard)
    cell = page.locator('[data-run="stale_weights"] [data-column=doctor]')
    found = {run["run"]: run["doctor"] for run in ask(dashboard.origin, "runs")["runs"]}
    assert found["stale_weights"]["error"] >= 1
    assert re.search(rf"{found['stale_weights']['error']} errors?", cell.inner_text())
    healthy = page.locator('[data-run="healthy"]')
    assert "nothing" in healthy.locator("[data-column=doctor]").inner_text()
    line = healthy.locator("[data-column=curve] path").get_attribute("d")
    assert line.count("L") == 39, "a point for each step"
    page.locator('[data-sort="doctor"]').click()
    page.wait_for_url(re.compile("sort=-doctor"))
    runs = shown_runs(page)
    assert runs.index("stale_weights") < runs.index("healthy"), "the worst first"
    cell.locator("a").click()
    page.wait_for_url(re.compile("#/r/stale_weights/doctor"))


def test_columns_are_chosen_also_from_the_configuration(page: Any, dashboard: Dashboard) -> None:
    open_runs(page, dashboard)
    menu = page.get_by_test_id("column-choice")
    menu.locator("summary").click()
    menu.get_by_label("model", exact=True).uncheck()
    page.locator("[data-column=model]").first.wait_for(state="detached")
    page.keyboard.press("Escape")
    menu.get_by_label("task", exact=True).wait_for(state="hidden")
    page.goto(dashboard.url("/?cols=status,config.learner.lr,config.rollout.group_size"))
    cell = page.locator('[data-run="healthy"] [data-column="config.learner.lr"]')
    config = ask(dashboard.origin, "runs/healthy/config")["config"]
    until(page, lambda: cell.count() == 1 and cell.inner_text() != "–", "an answer with this key")
    assert float(cell.inner_text()) == config["learner"]["lr"]
    size = page.locator('[data-run="healthy"] [data-column="config.rollout.group_size"]').inner_text()
    assert size == str(config["rollout"]["group_size"])
    assert page.locator("[data-column=step]").count() == 0
    page.locator('[data-sort="config.learner.lr"]').click()
    page.locator("th[aria-sort=descending]").wait_for()


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
