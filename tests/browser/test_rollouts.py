"""The table of rollouts: filter, completion, errors, history, search, views, columns, pins, a run that goes on."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.browser.answers import address, ask, rollouts, wait_for_index
from tests.browser.conftest import Complaints, Dashboard, start_dashboard
from tests.browser.waiting import until

pytestmark = pytest.mark.browser
RUN = "stale_weights"


@pytest.fixture
def table(dashboard: Dashboard, page: Any) -> Any:
    """The page of rollouts, with its rows."""
    wait_for_index(dashboard.origin, RUN)
    page.goto(dashboard.url(f"/r/{RUN}/rollouts"))
    _row(page, 0).get_by_role("gridcell").nth(3).wait_for()
    return page


def _row(page: Any, index: int) -> Any:
    return page.locator(f'[data-testid=rollout-row][data-index="{index}"]')


def _filter(page: Any, text: str) -> None:
    page.get_by_test_id("filter").fill(text)
    page.get_by_test_id("filter").press("Enter")


def _expect_total(page: Any, total: int) -> None:
    page.wait_for_function(
        "n => document.querySelector('[data-testid=total]')?.textContent === n.toLocaleString('en')", arg=total
    )


def test_the_table_has_every_rollout_and_a_click_opens_one(dashboard: Dashboard, table: Any) -> None:
    answer = rollouts(dashboard.origin, RUN)
    _expect_total(table, answer["total"])
    assert answer["total"] > 1000
    _row(table, 2).get_by_role("gridcell").nth(4).click()
    table.get_by_test_id("rollout-page").wait_for()
    assert table.url.endswith(f"/rollout/{address(answer['rows'][2])}")
    table.go_back()
    _row(table, 2).and_(table.locator(".selected")).wait_for()


def test_the_last_of_all_rows_is_a_key_away(dashboard: Dashboard, table: Any) -> None:
    total = rollouts(dashboard.origin, RUN)["total"]
    table.keyboard.press("End")
    last = _row(table, total - 1)
    last.get_by_text(re.compile(r"\w")).first.wait_for()
    rows = table.get_by_test_id("rollout-row").count()
    assert rows < 80, f"{rows} rows in the page: the table is not virtual"
    table.keyboard.press("Home")
    _row(table, 0).and_(table.locator(".selected")).wait_for()


def test_a_filter_narrows_the_table_and_stands_in_the_address(dashboard: Dashboard, table: Any) -> None:
    expected = rollouts(dashboard.origin, RUN, filter="gap>1 & step:20-39")["total"]
    assert 0 < expected < rollouts(dashboard.origin, RUN)["total"]
    table.keyboard.press("f")
    table.keyboard.type("gap>1 & step:20-39")
    table.keyboard.press("Enter")
    _expect_total(table, expected)
    assert "filter=gap%3E1" in table.url
    table.reload()
    _expect_total(table, expected)
    assert table.get_by_test_id("filter").input_value() == "gap>1 & step:20-39"
    table.get_by_label("Clear the filter").click()
    _expect_total(table, rollouts(dashboard.origin, RUN)["total"])


def test_names_and_values_are_completed(table: Any) -> None:
    box = table.get_by_test_id("filter")
    box.press_sequentially("repe")
    table.get_by_test_id("filter-list").get_by_text("repetition").wait_for()
    box.press("Tab")
    assert box.input_value() == "repetition"
    box.press_sequentially(">0 & fini")
    box.press("ArrowDown")
    box.press("Enter")
    assert box.input_value() == "repetition>0 & finish"
    box.press_sequentially("=le")
    table.get_by_test_id("filter-list").get_by_text("length", exact=True).click()
    assert box.input_value() == "repetition>0 & finish=length"


def test_an_error_is_shown_at_its_place(table: Any, complaints: Complaints) -> None:
    complaints.expect("status of 400")  # Chromium notes it in the console
    _filter(table, "reward<1 & gpa>1")
    error = table.get_by_test_id("filter-error")
    error.wait_for()
    assert error.get_attribute("data-position") == "11"
    assert "gpa" in error.inner_text()
    table.get_by_test_id("search").fill("answer")
    table.wait_for_function("() => location.hash.includes('q=answer')")
    table.wait_for_function("() => document.querySelector('[data-testid=filter-error]').dataset.position === '11'")
    _filter(table, "reward<1")
    error.wait_for(state="detached")


def test_filters_are_remembered(table: Any) -> None:
    _filter(table, "reward=1")
    table.wait_for_function("() => location.hash.includes('filter=')")
    table.get_by_label("Clear the filter").click()
    table.wait_for_function("() => !location.hash.includes('filter=')")
    table.reload()
    table.get_by_test_id("filter").click()
    table.get_by_test_id("filter-list").get_by_text("reward=1").click()
    assert table.get_by_test_id("filter").input_value() == "reward=1"


def test_the_help_lists_the_fields_and_its_examples_can_be_tried(dashboard: Dashboard, table: Any) -> None:
    table.get_by_test_id("filter-help-button").click()
    text = table.get_by_test_id("filter-help").inner_text()
    for field in rollouts(dashboard.origin, RUN)["fields"]:
        assert field["name"] in text
    table.get_by_text("correct & truncated").click()
    _expect_total(table, rollouts(dashboard.origin, RUN, filter="correct & truncated")["total"])


def test_a_saved_view_is_a_filter_and_an_order(dashboard: Dashboard, table: Any) -> None:
    view = next(one for one in ask(dashboard.origin, "views")["views"] if one["name"] == "largest gap")
    table.get_by_test_id("views").get_by_text("largest gap").click()
    best = rollouts(dashboard.origin, RUN, filter=view["filter"], sort=view["sort"])
    _expect_total(table, best["total"])
    table.locator("[aria-sort=descending] [data-sort=max_gap]").wait_for()
    table.locator("[data-sort=max_gap]").click()
    table.locator("[aria-sort=ascending] [data-sort=max_gap]").wait_for()
    assert "sort=max_gap" in table.url


def test_groups_are_listed_as_rows(dashboard: Dashboard, table: Any) -> None:
    view = next(one for one in ask(dashboard.origin, "views")["views"] if one["name"] == "all-wrong groups")
    table.get_by_test_id("views").get_by_text("all-wrong groups").click()
    answer = ask(dashboard.origin, f"runs/{RUN}/group-table?filter={quote(view['filter'])}&sort={view['sort']}")
    _expect_total(table, answer["total"])
    assert table.locator(".rl-status").inner_text().startswith(f"{answer['total']} groups")
    assert table.get_by_test_id("means").count() == 0
    rows = table.get_by_test_id("group-table-row")
    first = answer["rows"][0]
    text = rows.first.inner_text()
    assert str(first["step"]) in text
    assert "equal rewards" in text
    assert rows.first.locator(".gt-cells a").count() == len(first["cells"]) == 8
    assert rows.first.locator(".gt-cells a.right").count() == 0
    table.get_by_test_id("rows").get_by_text("completions").click()
    table.get_by_test_id("rollout-row").first.wait_for()
    _expect_total(table, rollouts(dashboard.origin, RUN, filter=view["filter"])["total"])
    table.get_by_test_id("rows").get_by_text("groups").click()
    rows.first.wait_for()
    table.get_by_role("grid").focus()
    table.keyboard.press("j")
    table.keyboard.press("Enter")
    table.wait_for_url(re.compile(rf"/group/train/{first['step']}/{first['group_id']}"))


def test_training_comes_before_evaluations_whichever_way_steps_are_sorted(dashboard: Dashboard, table: Any) -> None:
    first = table.get_by_test_id("rollout-row").first
    newest = max(ask(dashboard.origin, f"runs/{RUN}/steps?phase=train")["steps"])
    until(table, lambda: first.inner_text().split()[0] == str(newest), "the newest step of training")
    assert "eval" not in first.inner_text()


def test_slash_searches_the_completions(dashboard: Dashboard, table: Any) -> None:
    expected = rollouts(dashboard.origin, RUN, filter='"round"')["total"]
    table.keyboard.press("/")
    table.keyboard.type("round")
    _expect_total(table, expected)
    table.get_by_test_id("rollout-row").locator("mark", has_text="round").first.wait_for()
    _filter(table, "correct")
    _expect_total(table, rollouts(dashboard.origin, RUN, filter='"round" & correct')["total"])
    _filter(table, "correct | truncated")
    _expect_total(table, rollouts(dashboard.origin, RUN, filter='"round" & (correct | truncated)')["total"])


def test_columns_are_a_choice_that_the_address_keeps(table: Any) -> None:
    headers = table.get_by_role("columnheader")
    assert "k3" not in headers.all_inner_texts()
    table.get_by_test_id("column-choice").locator("summary").click()
    table.get_by_test_id("column-choice").get_by_label("k3").check()
    table.get_by_test_id("column-choice").get_by_label("truth").uncheck()
    table.wait_for_function("() => location.hash.includes('cols=')")
    table.reload()
    headers.first.wait_for()
    texts = [text.strip() for text in headers.all_inner_texts()]
    assert "k3" in texts
    assert "truth" not in texts


def test_keys_move_pin_compare_and_open(dashboard: Dashboard, table: Any) -> None:
    for key in ("j", "x", "j", "x"):
        table.keyboard.press(key)
    table.get_by_test_id("pins").get_by_text("2 pinned").wait_for()
    table.keyboard.press("c")
    table.get_by_test_id("twoup").wait_for()
    table.reload()  # pins and the comparison are part of the address
    table.get_by_test_id("twoup").wait_for()
    table.keyboard.press("c")
    _row(table, 3).get_by_role("gridcell").nth(3).wait_for()  # keys move over rows that are there
    for _ in range(4):
        table.keyboard.press("j")
    table.keyboard.press("k")
    table.keyboard.press("x")
    table.get_by_test_id("pins").get_by_text("3 pinned").wait_for()
    table.get_by_test_id("compare-pins").click()
    table.get_by_test_id("column").nth(2).wait_for()
    table.get_by_text("unpin all").click()
    table.get_by_test_id("pins").wait_for(state="detached")
    _row(table, 0).wait_for()
    table.keyboard.press("j")
    table.keyboard.press("Enter")
    table.get_by_test_id("rollout-page").wait_for()


@pytest.fixture
def growing(demo_runs: Path, tmp_path: Path) -> Iterator[tuple[Dashboard, Path]]:
    """A dashboard over a run whose last step has not been written yet, and the table of that step."""
    run = tmp_path / "runs" / "growing"
    shutil.copytree(demo_runs / "healthy", run, ignore=shutil.ignore_patterns(".index"))
    held = tmp_path / "step-000039.parquet"
    (run / "rollouts" / held.name).rename(held)
    running = start_dashboard(tmp_path / "runs", tmp_path / "dashboard.log")
    yield running, held
    running.stop()


def test_new_rollouts_appear_and_rows_in_sight_stay(
    growing: tuple[Dashboard, Path], page: Any, complaints: Complaints
) -> None:
    running, held = growing
    complaints.allowed_origins.add(running.origin)
    wait_for_index(running.origin, "growing")
    before = rollouts(running.origin, "growing", filter="phase=train")["total"]
    page.goto(running.url("/r/growing/rollouts?filter=phase%3Dtrain"))
    _expect_total(page, before)
    for _ in range(60):
        page.keyboard.press("j")
    shown = _row(page, 60).inner_text()
    shutil.copy(held, running.folder / "growing" / "rollouts" / held.name)
    page.get_by_test_id("fresh").wait_for()
    assert _row(page, 60).inner_text() == shown
    page.get_by_test_id("fresh").click()
    after = rollouts(running.origin, "growing", filter="phase=train")["total"]
    assert after > before
    _expect_total(page, after)
