"""System pages of a run without files, and of one whose actors and reasons are hostile text."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Complaints, Dashboard, start_dashboard
from tests.browser.waiting import until

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)>\u202e\x00{{7*7}}"


@pytest.fixture(scope="module")
def odd_runs(demo_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard over `bare`, which has its configuration alone, and `hostile`."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "bare").mkdir()
    shutil.copy(demo_runs / "healthy" / "config.yaml", folder / "bare")
    shutil.copytree(demo_runs / "healthy", folder / "hostile", ignore=shutil.ignore_patterns(".index", "checkpoints"))
    events = folder / "hostile" / "events.jsonl"
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    for line in lines:
        if line["actor"] == "sampler-1":
            line["actor"] = HOSTILE
        if line["kind"] == "instant":
            line["extra"] = {"name": "error", "text": HOSTILE}
    events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    ledger = folder / "hostile" / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace("equal_rewards", "<b>reason</b>"))
    running = start_dashboard(folder, tmp_path_factory.mktemp("log") / "odd.log")
    yield running
    running.stop()


@pytest.fixture(autouse=True)
def odd_origin(odd_runs: Dashboard, complaints: Complaints) -> None:
    complaints.allowed_origins.add(odd_runs.origin)


def test_run_without_files_says_what_is_not_there(page: Any, odd_runs: Dashboard) -> None:
    for path, told in {
        "timeline": "No spans yet.",
        "fleet": "No actor has written anything yet.",
        "ledger": "No group was dispatched yet.",
    }.items():
        page.goto(odd_runs.url(f"/r/bare/{path}"))
        page.get_by_text(told).wait_for()
    page.goto(odd_runs.url("/r/bare/doctor"))
    page.get_by_test_id("finding").first.wait_for()
    page.goto(odd_runs.url("/compare?runs=bare,hostile"))
    page.get_by_text("No prompt is in all of these runs.").wait_for()


def test_hostile_actors_and_reasons_are_text(page: Any, odd_runs: Dashboard) -> None:
    page.goto(odd_runs.url("/r/hostile/timeline"))
    lanes = page.locator(".gantt-actor")
    until(page, lambda: lanes.count() == 6)
    hostile = lanes.filter(has_text="<img src=x onerror=alert(1)>")
    assert hostile.locator(".chip").all_inner_texts() == ["RLO", "NUL"]
    assert page.locator("#app img").count() == 0
    page.goto(odd_runs.url("/r/hostile/fleet"))
    error = page.get_by_test_id("actor-controller").locator(".actor-error")
    error.wait_for()
    assert "<img src=x onerror=alert(1)>" in error.inner_text()
    assert "{{7*7}}" in error.inner_text()
    assert page.locator("#app img").count() == 0
    page.goto(odd_runs.url("/r/hostile/ledger"))
    reasons = page.get_by_test_id("reasons")
    reasons.wait_for()
    assert "<b>reason</b>" in reasons.inner_text()
