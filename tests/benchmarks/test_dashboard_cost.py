"""What the dashboard, with a page open, takes of the processor time of the run that it follows.

`make bench-dashboard` prints the ratio for `tiny` (steps of half a second: the worst case) and for `quickstart`.
"""

import re
from typing import Any

import psutil
import pytest

from tests.browser.conftest import CHROMIUM, CHROMIUM_ARGUMENTS, browser  # noqa: F401 - the fixture
from tests.integration import runs

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install Debian's package chromium"),
]

WATCHED_S = 60.0


class ProcessorTime:
    """Seconds of all processes of a run, those that have ended included: the dashboard's apart."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self._seconds: dict[tuple[int, float], tuple[bool, float]] = {}

    def look(self) -> None:
        for process in psutil.process_iter():
            try:
                if process.environ().get(runs.TAG) != self._tag:
                    continue
                times, is_dashboard = process.cpu_times(), "dashboard" in process.cmdline()
                self._seconds[process.pid, process.create_time()] = (is_dashboard, times.user + times.system)
            except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
                continue

    def total(self, *, of_dashboard: bool) -> float:
        return sum(seconds for is_dashboard, seconds in self._seconds.values() if is_dashboard is of_dashboard)


@pytest.mark.parametrize("recipe", ["tiny", "quickstart"])
def test_share_of_the_processor(recipe: str, tmp_path: Any, browser: Any) -> None:  # noqa: F811
    short = ("eval.num_prompts=8", "eval.num_samples=2")
    run = runs.start(tmp_path / "live", recipe, "--dashboard", "steps=1000", *short)
    try:
        run.wait_for_steps(3)
        address = re.search(r"^dashboard: (http://\S+)$", run.output(), re.MULTILINE)
        assert address is not None, run.output()
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{address[1]}/overview")
        page.get_by_test_id("tiles").wait_for()
        processor = ProcessorTime(run.tag)
        processor.look()
        before_s = [processor.total(of_dashboard=whose) for whose in (True, False)]
        first = len(runs.read_lines(run.path / "metrics.jsonl"))
        page.wait_for_timeout(1000 * WATCHED_S)
        processor.look()
        steps = len(runs.read_lines(run.path / "metrics.jsonl")) - first
        page.close()
    finally:
        run.process.terminate()
        run.wait()
    dashboard_s, run_s = (processor.total(of_dashboard=w) - b for w, b in zip((True, False), before_s, strict=True))
    print(
        f"{recipe}: {steps} steps in {WATCHED_S:.0f} s; processor time of the dashboard {dashboard_s:.2f} s, of the run"
    )
    print(f"{run_s:.2f} s: {dashboard_s / run_s:.2%}")
    assert dashboard_s / run_s < 0.02
