"""The ledger: a pixel for each group, the exactly-once badge, prompts, the table of groups."""

import re
from typing import Any

import pytest

from tests.browser.answers import ask
from tests.browser.conftest import Dashboard
from tests.browser.waiting import until

pytestmark = pytest.mark.browser


def open_ledger(page: Any, dashboard: Dashboard, query: str = "") -> Any:
    """The grid's canvas."""
    page.goto(dashboard.url(f"/r/healthy/ledger{query}"))
    canvas = page.get_by_test_id("pixel-grid").locator("canvas")
    canvas.wait_for()
    until(page, lambda: canvas.evaluate("canvas => canvas.width") > 300, "a drawn canvas")
    return canvas


def centre(canvas: Any, place: int) -> tuple[float, float]:
    """Where on the screen a group's pixel is."""
    cell, across = float(canvas.get_attribute("data-cell")), int(canvas.get_attribute("data-across"))
    box = canvas.bounding_box()
    return box["x"] + (place % across + 0.5) * cell, box["y"] + (place // across + 0.5) * cell


def test_account_balances_in_words(page: Any, dashboard: Dashboard) -> None:
    open_ledger(page, dashboard)
    assert page.get_by_test_id("exactly-once").inner_text().endswith("exactly once")
    words = page.get_by_test_id("balance-words").inner_text()
    numbers = [int(number) for number in re.findall(r"\d+", words)]
    counts = ask(dashboard.origin, "runs/healthy/ledger")["counts"]
    trained, rejected = counts["consumed"], counts["rejected"]
    assert numbers == [trained + rejected, trained, rejected, 0]
    assert trained == 480  # 40 steps of 12 groups
    assert "=" in words
    checks = page.get_by_test_id("check")
    assert checks.count() >= 4
    assert all(text.startswith("✓") for text in checks.all_inner_texts())
    assert "equal rewards" in page.get_by_test_id("reasons").inner_text()


def test_states_are_counted_and_one_can_stand_out(page: Any, dashboard: Dashboard) -> None:
    open_ledger(page, dashboard)
    rejected = page.get_by_test_id("state-rejected")
    count = ask(dashboard.origin, "runs/healthy/ledger")["counts"]["rejected"]
    assert count > 10
    assert rejected.inner_text().split() == ["rejected", str(count)]
    rejected.click()
    page.wait_for_url(re.compile("state=r"))
    page.reload()
    page.locator("[data-testid=state-rejected][aria-pressed=true]").wait_for()
    page.get_by_test_id("state-rejected").click()
    page.locator("[data-testid=state-rejected][aria-pressed=false]").wait_for()


def test_hover_names_the_group_and_a_click_opens_it(page: Any, dashboard: Dashboard) -> None:
    canvas = open_ledger(page, dashboard)
    page.mouse.move(*centre(canvas, 1))
    card = page.get_by_test_id("pixel-card")
    card.wait_for()
    assert "#1 consumed" in card.inner_text()
    until(page, lambda: "000001-" in card.inner_text(), "the group's id")
    assert "step 0" in card.inner_text()
    page.mouse.click(*centre(canvas, 1))
    page.wait_for_url(re.compile("#/r/healthy/group/train/0/000001-"))


def test_click_on_a_rejected_group_marks_its_row(page: Any, dashboard: Dashboard) -> None:
    canvas = open_ledger(page, dashboard)
    page.mouse.move(*centre(canvas, 0))
    page.get_by_test_id("pixel-card").wait_for()
    assert "rejected" in page.get_by_test_id("pixel-card").inner_text()
    page.mouse.click(*centre(canvas, 0))
    row = page.locator("[data-testid=ledger-row][aria-selected=true]")
    row.wait_for()
    until(page, lambda: "equal rewards" in row.inner_text(), "the row of the group")
    assert "/ledger" in page.url  # it is in no table of rollouts that could be opened


def test_prompts_show_their_visits(page: Any, dashboard: Dashboard) -> None:
    open_ledger(page, dashboard)
    first = page.get_by_test_id("prompt").first
    first.wait_for()
    hardest = first.inner_text()
    first.click()
    visits = page.get_by_test_id("visits").locator("a")
    visits.first.wait_for()
    assert "/r/healthy/group/" in visits.first.get_attribute("href")
    assert "prompt=" in page.url
    page.get_by_test_id("prompt-side").get_by_text("easiest").click()
    until(page, lambda: page.get_by_test_id("prompt").first.inner_text() != hardest, "other prompts")
    assert "prompts=easiest" in page.url


def test_table_goes_through_all_groups_by_keys(page: Any, dashboard: Dashboard) -> None:
    open_ledger(page, dashboard)
    page.locator("[data-testid=ledger-row]", has_text="000003-").wait_for()
    total = ask(dashboard.origin, "runs/healthy/ledger/groups?limit=1")["total"]
    page.keyboard.press("End")  # beyond the first chunk: fetched when it comes into sight
    last = page.locator("[data-testid=ledger-row][aria-selected=true]", has_text=f"{total - 1:06d}-")
    last.wait_for()
    page.keyboard.press("k")
    page.locator("[data-testid=ledger-row][aria-selected=true]", has_text=f"{total - 2:06d}-").wait_for()
    page.keyboard.press("Home")
    page.keyboard.press("j")
    page.locator("[data-testid=ledger-row][aria-selected=true]", has_text="000001-").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("#/r/healthy/group/train/0/000001-"))
