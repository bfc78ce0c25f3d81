"""The page of a run's log: what happened, found by words, and the stacks of what hung."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.record.instants import run_instant
from cluster.record.run_directory import RunDirectory
from cluster.types import Instant
from tests.browser.conftest import Complaints, Dashboard, start_dashboard

pytestmark = pytest.mark.browser
HOSTILE = "the disk <img src=x onerror=alert(1)> is \u202efull"


@pytest.fixture
def hung(demo_runs: Path, tmp_path: Path) -> Iterator[Dashboard]:
    """A run that warned and hung."""
    shutil.copytree(demo_runs / "healthy", tmp_path / "runs" / "hung", ignore=shutil.ignore_patterns(".index"))
    run = RunDirectory.existing(tmp_path / "runs" / "hung")
    run.append_event(run_instant(Instant.WARNING, HOSTILE))
    run.write_stacks({"sampler-0": "Thread 7 <b>waits</b>\n", "controller": "Thread 8\n"})
    dashboard = start_dashboard(tmp_path / "runs", tmp_path / "dashboard.log")
    yield dashboard
    dashboard.stop()


def test_the_log_and_the_stacks(hung: Dashboard, page: Any, complaints: Complaints) -> None:
    complaints.allowed_origins.add(hung.origin)
    page.goto(hung.url("/r/hung/overview"))
    page.get_by_test_id("nav-log").click()
    first = page.get_by_test_id("log-entry").first
    first.wait_for()
    assert "warning" in first.inner_text()
    assert "the disk <img src=x onerror=alert(1)> is" in first.inner_text()
    assert "\u202e" not in first.inner_text()
    page.keyboard.press("/")
    page.keyboard.type("DISK")
    page.wait_for_function("() => document.querySelectorAll('[data-testid=log-entry]').length === 1")
    page.get_by_test_id("log-search").fill("no such words")
    page.get_by_text("Nothing in the log has these words.").wait_for()
    stack = page.get_by_test_id("stack").filter(has_text="000-sampler-0.txt")
    stack.locator("summary").click()
    stack.get_by_text("Thread 7 <b>waits</b>").wait_for()
