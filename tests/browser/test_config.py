"""The configuration: what was changed, all of it, the file, and the search."""

import re
from typing import Any

import pytest

from tests.browser.conftest import Dashboard

pytestmark = pytest.mark.browser


def shown_keys(page: Any) -> list[str]:
    found: list[str] = page.locator("tr[data-key]").evaluate_all("rows => rows.map((row) => row.dataset.key)")
    return found


def open_config(page: Any, dashboard: Dashboard, query: str = "") -> None:
    page.goto(dashboard.url(f"/r/healthy/config{query}"))
    page.locator("tr[data-key]").first.wait_for()


def test_changed_keys_stand_beside_their_defaults(page: Any, dashboard: Dashboard) -> None:
    open_config(page, dashboard)
    keys = shown_keys(page)
    assert "steps" in keys
    assert page.get_by_text(f"{len(keys)} keys differ from their default").is_visible()
    assert page.locator('tr[data-key="steps"] td').all_inner_texts()[:2] == ["steps", "40"]


def test_all_keys_have_the_changed_ones_marked(page: Any, dashboard: Dashboard) -> None:
    open_config(page, dashboard)
    changed = shown_keys(page)
    page.get_by_test_id("config-view").get_by_text("all", exact=True).click()
    page.wait_for_url(re.compile("view=all"))
    page.locator('tr[data-key="seed"]').wait_for()
    assert len(shown_keys(page)) > len(changed)
    assert "changed" in page.locator('tr[data-key="steps"]').get_attribute("class")
    assert "changed" not in page.locator('tr[data-key="seed"]').get_attribute("class")


def test_the_search_finds_keys_and_is_kept(page: Any, dashboard: Dashboard) -> None:
    open_config(page, dashboard, "?view=all")
    page.keyboard.press("/")
    page.keyboard.type("learner.lr")
    page.wait_for_url(re.compile("find=learner.lr"))
    page.locator('tr[data-key="seed"]').wait_for(state="detached")
    assert all("learner.lr" in key for key in shown_keys(page))
    page.reload()
    page.locator("tr[data-key]").first.wait_for()
    assert page.get_by_test_id("config-find").input_value() == "learner.lr"
    page.get_by_test_id("config-find").fill("no such key")
    page.get_by_text("Nothing of that name.").wait_for()


def test_the_file_as_it_is(page: Any, dashboard: Dashboard) -> None:
    open_config(page, dashboard)
    page.get_by_test_id("config-view").get_by_text("file").click()
    page.get_by_test_id("config-file").wait_for()
    assert "max_policy_lag: 0" in page.get_by_test_id("config-file").inner_text()
