"""What stands around every page: navigation, scrubber, keys, theme, and updates while a run goes on."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.browser.conftest import Complaints, Dashboard, start_dashboard
from tests.browser.waiting import until

pytestmark = pytest.mark.browser
PAGES = ("overview", "steps", "rollouts", "timeline", "fleet", "ledger", "compare", "doctor", "config")
UPDATE_S = 2.0
UPDATE_DEADLINE_S = 10.0
"""Where other tests may be running beside."""


def test_every_page_is_reached_from_the_navigation_and_by_its_keys(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/overview"))
    for name in PAGES[1:]:
        page.goto(dashboard.url("/r/healthy/overview"))
        page.get_by_test_id(f"nav-{name}").click()
        page.wait_for_url(re.compile("#/compare" if name == "compare" else f"#/r/healthy/{name[:4]}"))
        # The address changes before what is drawn does.
        page.locator('.nav a[aria-current="page"]', has_text=re.compile(f"^{name}$", re.IGNORECASE)).wait_for()
        assert page.locator('.nav a[aria-current="page"]').count() == 1
    for key, name in {
        "o": "overview",
        "r": "rollouts",
        "t": "timeline",
        "f": "fleet",
        "l": "ledger",
        "d": "doctor",
    }.items():
        page.goto(dashboard.url("/r/healthy/config"))
        page.get_by_test_id("config-page").wait_for()
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(re.compile(f"#/r/healthy/{name}"))


def test_the_frame_tells_run_status_and_progress(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/overview"))
    page.get_by_text("step 40").wait_for()
    assert page.get_by_test_id("status").inner_text().split() == ["●", "finished"]
    assert page.get_by_test_id("progress").inner_text().replace("\n", " ").split() == ["step", "40", "/", "40"]
    page.goto(dashboard.url("/r/stale_weights/overview"))
    page.get_by_test_id("doctor-counts").get_by_text("✖").wait_for()
    page.get_by_test_id("doctor-counts").click()
    page.wait_for_url(re.compile("#/r/stale_weights/doctor"))


def test_the_switcher_shows_the_same_page_of_another_run(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/config"))
    page.get_by_test_id("run-switcher").click()
    page.get_by_test_id("run-menu").get_by_text("slow_sampler").click()
    page.wait_for_url(re.compile("#/r/slow_sampler/config"))
    assert page.get_by_test_id("run-menu").count() == 0
    page.get_by_test_id("run-switcher").click()
    page.get_by_test_id("run-menu").wait_for()
    page.keyboard.press("Escape")
    page.get_by_test_id("run-menu").wait_for(state="detached")


def test_a_click_on_the_scrubber_opens_the_step_and_a_drag_marks_a_range(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/overview"))
    area = page.locator(".scrub-area")
    page.locator(".scrub-line[d*='L']").wait_for()
    box = area.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 20, steps=5)
    page.get_by_test_id("scrubber").get_by_text("steps 10–29").wait_for()
    page.mouse.up()
    page.wait_for_url(re.compile(r"from=10&to=29"))
    page.mouse.move(10, 10)
    page.get_by_test_id("scrubber").get_by_text("steps 10–29").wait_for()
    page.get_by_test_id("range-clear").click()
    page.wait_for_url(re.compile(r"overview$"))
    area.click(position={"x": 6, "y": 20})
    page.wait_for_url(re.compile(r"#/r/healthy/step/train/0$"))
    area.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(r"#/r/healthy/step/train/1$"))


def test_marks_stand_on_the_scrubber(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/overview"))
    page.locator(".mark.restart").wait_for()
    assert page.locator(".mark.eval").count() == 5
    assert "evaluation, step 20" in page.locator(".mark.eval").nth(2).get_attribute("title")


def test_a_range_goes_to_the_filter_of_the_rollouts(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/rollouts?filter=reward<1"))
    page.locator(".scrub-line[d*='L']").wait_for()
    box = page.locator(".scrub-area").bounding_box()
    page.mouse.move(box["x"] + 6, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20, steps=5)
    page.mouse.up()
    page.wait_for_url(lambda url: unquote(url).endswith("rollouts?filter=reward<1+&+step:0-20"))


def test_the_theme_is_kept(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/overview"))
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(250, 249, 246)"
    page.keyboard.press("d")
    page.locator('html[data-theme="dark"]').wait_for()
    assert page.evaluate(background) == "rgb(15, 20, 25)"
    page.reload()
    page.locator('html[data-theme="dark"]').wait_for()
    page.get_by_test_id("theme").click()
    page.locator('html[data-theme="light"]').wait_for()
    assert page.evaluate(background) == "rgb(250, 249, 246)"


def test_help_lists_the_keys_of_the_page(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/healthy/step/train/4"))
    page.get_by_test_id("grid").wait_for()
    page.keyboard.press("?")
    shown = page.get_by_test_id("help-overlay")
    shown.wait_for()
    assert "next step" in shown.inner_text()
    assert "light or dark" in shown.inner_text()
    page.keyboard.press("Escape")
    shown.wait_for(state="detached")
    page.get_by_test_id("help").click()
    shown.wait_for()
    page.get_by_label("Close").click()
    shown.wait_for(state="detached")


def test_an_unknown_run_or_page_is_told_inside_the_frame(
    page: Any, dashboard: Dashboard, complaints: Complaints
) -> None:
    complaints.expect("status of 404")  # Chromium notes it in the console
    page.goto(dashboard.url("/r/healthy/nothing"))
    page.get_by_text('There is no page "nothing".').wait_for()
    page.goto(dashboard.url("/r/missing/overview"))
    page.get_by_text("There is no such run.").wait_for()


@pytest.fixture
def growing(demo_runs: Path, tmp_path: Path, complaints: Complaints, page: Any) -> Iterator[Dashboard]:
    """A dashboard over a copy of the healthy run that has 20 of its 40 steps and no end yet."""
    run = tmp_path / "runs" / "growing"
    shutil.copytree(demo_runs / "healthy", run)
    (run / "summary.json").unlink(missing_ok=True)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(lines[:20]))
    for step in range(20, 40):
        (run / "rollouts" / f"step-{step:06d}.parquet").unlink()
    running = start_dashboard(run.parent, tmp_path / "log")
    complaints.allowed_origins.add(running.origin)
    yield running
    page.goto("about:blank")  # a page that is open complains about a server that ends
    running.stop()


@pytest.mark.parametrize(
    "within_s", [UPDATE_DEADLINE_S, pytest.param(UPDATE_S, marks=pytest.mark.slow)], ids=["soon", "within two seconds"]
)
def test_a_step_comes_to_the_screen(page: Any, growing: Dashboard, demo_runs: Path, within_s: float) -> None:
    run = growing.folder / "growing"
    lines = (demo_runs / "healthy" / "metrics.jsonl").read_text().splitlines(keepends=True)
    page.goto(growing.url("/r/growing/overview"))
    page.get_by_text("step 20").wait_for()
    page.get_by_test_id("chart-reward").locator("canvas").wait_for()
    with (run / "metrics.jsonl").open("a") as file:
        file.write(lines[20])
    began = time.monotonic()
    page.get_by_text("step 21").wait_for()
    assert time.monotonic() - began < within_s
    reward = json.loads(lines[20])["reward/mean"]
    page.get_by_test_id("tile-reward").get_by_text(f"{reward:.3g}", exact=True).wait_for()


SEEN = """hidden => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
"""What the browser does when another tab comes before this one, or goes."""


def test_a_tab_that_nobody_sees_holds_no_connection(page: Any, growing: Dashboard, demo_runs: Path) -> None:
    streams: list[str] = []
    page.on("request", lambda request: streams.append("begun") if "/api/stream" in request.url else None)
    page.on("requestfailed", lambda request: streams.append("ended") if "/api/stream" in request.url else None)
    page.goto(growing.url("/r/growing/overview"))
    page.get_by_text("step 20").wait_for()

    def open_streams() -> int:
        return streams.count("begun") - streams.count("ended")

    until(page, lambda: open_streams() == 1, "one stream")
    page.evaluate(SEEN, True)
    until(page, lambda: open_streams() == 0, "no stream")
    lines = (demo_runs / "healthy" / "metrics.jsonl").read_text().splitlines(keepends=True)
    with (growing.folder / "growing" / "metrics.jsonl").open("a") as file:
        file.write(lines[20])
    page.wait_for_timeout(1500)
    assert page.get_by_text("step 21").count() == 0
    page.evaluate(SEEN, False)
    page.get_by_text("step 21").wait_for()
    until(page, lambda: open_streams() == 1, "one stream again")


def test_following_goes_on_to_each_new_step(page: Any, growing: Dashboard, demo_runs: Path) -> None:
    run = growing.folder / "growing"
    lines = (demo_runs / "healthy" / "metrics.jsonl").read_text().splitlines(keepends=True)
    page.goto(growing.url("/r/growing/step/train/19"))
    page.get_by_test_id("grid").wait_for()
    page.get_by_test_id("progress").get_by_text("20", exact=True).wait_for()  # the newest step is known
    page.keyboard.press(".")
    page.wait_for_url(re.compile("live=1"))
    shutil.copy(demo_runs / "healthy" / "rollouts" / "step-000020.parquet", run / "rollouts")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(lines[20])
    page.wait_for_url(re.compile("step/train/20.*live=1"))
    page.locator('[data-testid=step-page][data-step="20"]').wait_for()


def test_a_dashboard_that_went_away_is_told(page: Any, growing: Dashboard, complaints: Complaints) -> None:
    page.goto(growing.url("/r/growing/overview"))
    page.get_by_text("step 20").wait_for()
    complaints.expect("net::ERR_")  # Chromium notes each connection that was cut or refused
    growing.stop()
    page.get_by_test_id("connection").wait_for()
    assert page.get_by_test_id("tile-reward").is_visible()
