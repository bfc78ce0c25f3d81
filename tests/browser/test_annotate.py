"""A completion is labelled and bookmarked on its page, and found by a filter."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.browser.answers import address, rollouts, wait_for_index
from tests.browser.conftest import Complaints, Dashboard, start_dashboard

pytestmark = pytest.mark.browser


@pytest.fixture
def own(demo_runs: Path, tmp_path: Path) -> Iterator[Dashboard]:
    """A copy that may be written."""
    shutil.copytree(demo_runs / "healthy", tmp_path / "runs" / "own", ignore=shutil.ignore_patterns(".index"))
    dashboard = start_dashboard(tmp_path / "runs", tmp_path / "dashboard.log")
    yield dashboard
    dashboard.stop()


def test_what_is_noted_is_kept_and_found(own: Dashboard, page: Any, complaints: Complaints) -> None:
    complaints.allowed_origins.add(own.origin)
    wait_for_index(own.origin, "own")
    row = rollouts(own.origin, "own", filter="correct")["rows"][0]
    page.goto(own.url(f"/r/own/rollout/{address(row)}"))
    page.get_by_test_id("label").fill("lucky <b>")
    page.get_by_test_id("note").fill("it guessed")
    page.get_by_test_id("save-annotation").click()
    page.wait_for_function("() => document.querySelector('[data-testid=save-annotation]').disabled")
    page.keyboard.press("Escape")
    page.get_by_test_id("bookmark").click()
    page.get_by_text("★ bookmarked").wait_for()
    page.reload()
    page.get_by_text("★ bookmarked").wait_for()
    assert page.get_by_test_id("label").input_value() == "lucky <b>"
    assert page.get_by_test_id("note").input_value() == "it guessed"
    wanted = quote('bookmarked & label~"lucky <"')
    page.goto(own.url(f"/r/own/rollouts?filter={wanted}&cols=step,annotation"))
    page.wait_for_function("() => document.querySelector('[data-testid=total]')?.textContent === '1'")
    page.get_by_test_id("rollout-row").get_by_text("lucky <b>").wait_for()
