"""The filtered rollouts, saved from the page."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.browser.answers import rollouts, wait_for_index
from tests.browser.conftest import Dashboard

pytestmark = pytest.mark.browser
RUN = "healthy"
FILTER = "correct & step:3-4"


def _saved(page: Any, label: str) -> tuple[str, str]:
    """(name, content) of what the browser saves for the link."""
    menu = page.get_by_test_id("download")
    menu.locator("summary").click()
    with page.expect_download() as started:
        menu.get_by_role("link", name=label).first.click()
    return started.value.suggested_filename, Path(started.value.path()).read_text(encoding="utf-8")


def test_what_is_saved_is_what_the_table_shows(dashboard: Dashboard, page: Any) -> None:
    wait_for_index(dashboard.origin, RUN)
    page.goto(dashboard.url(f"/r/{RUN}/rollouts?filter={FILTER.replace(' ', '%20').replace('&', '%26')}"))
    total = rollouts(dashboard.origin, RUN, filter=FILTER)["total"]
    page.wait_for_function(
        "n => document.querySelector('[data-testid=total]')?.textContent === n.toLocaleString('en')", arg=total
    )
    assert total > 1
    name, text = _saved(page, "JSON lines")
    rows = [json.loads(line) for line in text.splitlines()]
    assert (name, len(rows)) == (f"{RUN}-rollouts.jsonl", total)
    assert {row["step"] for row in rows} == {3, 4}
    assert all(row["correct"] for row in rows)
    name, text = _saved(page, "CSV")
    assert (name, len(list(csv.reader(io.StringIO(text, newline=""))))) == (f"{RUN}-rollouts.csv", total + 1)
    name, text = _saved(page, "SFT")
    assert (name, len(text.splitlines())) == (f"{RUN}-sft.jsonl", total)
    assert [turn["role"] for turn in json.loads(text.splitlines()[0])["prompt"]][-1] == "user"


def test_the_menu_closes_and_says_where_there_is_nothing(dashboard: Dashboard, page: Any) -> None:
    wait_for_index(dashboard.origin, RUN)
    page.goto(dashboard.url(f"/r/{RUN}/rollouts?filter=step:999"))
    page.get_by_test_id("none").wait_for()
    menu = page.get_by_test_id("download")
    menu.locator("summary").click()
    menu.get_by_text("No rollout passes the filter.").wait_for()
    page.keyboard.press("Escape")
    page.wait_for_function("() => !document.querySelector('[data-testid=download]').open")
