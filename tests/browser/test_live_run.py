"""The dashboard beside a real run of `tiny`: every page follows it."""

import re
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.conftest import Complaints
from tests.browser.waiting import PAUSE_MS, until
from tests.integration import runs

pytestmark = [pytest.mark.browser, pytest.mark.integration]

EVENT_TO_SCREEN_S = 2.0
STEP_DEADLINE_S = 60.0
CHANGING = ("overview", "rollouts", "timeline", "fleet", "ledger")
"""Pages whose text, below the frame, is another one after each step."""
STANDING = ("doctor", "config")


@pytest.fixture
def live(tmp_path: Any) -> Iterator[runs.Run]:
    """A run that trains for longer than the test looks at it."""
    run = runs.start(tmp_path / "live", "tiny", "--dashboard", "steps=1000", "eval.num_prompts=8", "eval.num_samples=2")
    try:
        run.wait_for_steps(2)
        yield run
    finally:
        run.process.terminate()
        run.wait()
    assert run.left_behind() == []


def steps_on_screen(page: Any) -> int:
    found = re.search(r"step (\d+)", page.get_by_test_id("progress").inner_text())
    return int(found[1]) if found else 0


def wait_for_next_step(page: Any, live: runs.Run) -> float:
    """Seconds from the record of a step to the moment when the frame shows it."""
    shown, begun_s = steps_on_screen(page), time.monotonic()
    while (now_shown := steps_on_screen(page)) <= shown:
        assert live.process.poll() is None, live.output()
        assert time.monotonic() - begun_s < STEP_DEADLINE_S, f"no step after {shown} came to {page.url}"
        page.wait_for_timeout(PAUSE_MS)
    seen_s = time.time()
    line = runs.read_lines(live.path / "metrics.jsonl")[now_shown - 1]
    return seen_s - line["time/ended_s"]


def text_below_frame(page: Any) -> str:
    return str(page.locator("main").inner_text())


def test_every_page_follows_a_live_run(live: runs.Run, page: Any, complaints: Complaints) -> None:
    address = re.search(r"^dashboard: (http://127\.0\.0\.1:\d+)/#(/r/live)$", live.output(), re.MULTILINE)
    assert address is not None, live.output()
    origin, run_page = address.groups()
    complaints.allowed_origins = {origin}
    page.set_default_timeout(30_000)
    delays: dict[str, float] = {}
    for name in (*CHANGING, *STANDING):
        page.goto(f"{origin}/#{run_page}/{name}")
        page.locator(f'[data-testid=nav-{name}][aria-current="page"]').wait_for()
        page.locator('[data-testid=status]:has-text("live")').wait_for()
        wait_for_next_step(page, live)  # the first one may have been on its way while the page was loading
        before = text_below_frame(page)
        # Of three, so that one hiccup of a busy machine does not decide.
        delays[name] = statistics.median(wait_for_next_step(page, live) for _ in range(3))
        if name in CHANGING:
            until(page, lambda before=before: text_below_frame(page) != before, f"another text on {name}")  # type: ignore[misc]
    print(f"event to screen {delays}")
    assert max(delays.values()) < EVENT_TO_SCREEN_S, delays
