"""What is on the canvas of a run of more spans than a screen has pixels, which was stopped and resumed."""

import json
import math
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Dashboard, start_dashboard
from tests.browser.waiting import until
from tests.cluster.dashboard.long_run import STOPPED_S, write_long_run

pytestmark = pytest.mark.browser
STEPS = 400
"""12,804 spans in about 1.2 hours, beside a stop of eight."""
INK = """(test_id) => {
  const canvas = document.querySelector('.gantt-canvas');
  const ratio = canvas.width / canvas.clientWidth;
  const name = document.querySelector(`[data-testid="${test_id}"]`);
  const [lane, frame] = [name, canvas].map((element) => element.getBoundingClientRect());
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
  copy.drawImage(canvas, 0, 0);
  const top = Math.round((lane.top - frame.top) * ratio), height = Math.round(lane.height * ratio);
  const {data} = copy.getImageData(0, top, canvas.width, height);
  const colour = (name) => {
    const probe = new OffscreenCanvas(1, 1).getContext('2d');
    const element = document.body.appendChild(document.createElement('i'));
    element.style.color = `var(${name})`;
    probe.fillStyle = getComputedStyle(element).color;
    element.remove();
    probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const [paper, ink] = [colour('--gantt-lane'), colour('--span-train')];
  const full = ink.reduce((sum, value, i) => sum + (value - paper[i]) ** 2, 0);
  const columns = new Array(canvas.width).fill(0);
  for (let i = 0; i < data.length; i += 4) {
    const line = ink.map((value, k) => value - paper[k]), seen = ink.map((_, k) => data[i + k] - paper[k]);
    const part = line.reduce((sum, value, k) => sum + value * seen[k], 0) / full;
    const off = line.reduce((sum, value, k) => sum + (seen[k] - part * value) ** 2, 0) / full;
    // Else it is of another colour: the dashes and the words of a stop.
    if (off < 0.01) columns[(i / 4) % canvas.width] += Math.max(0, Math.min(1, part)) / height;
  }
  return columns;
}"""
"""Of each column of pixels of a lane, how much of its height has the colour of training."""


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    folder = tmp_path_factory.mktemp("long")
    write_long_run(folder / "long", STEPS)
    running = start_dashboard(folder, tmp_path_factory.mktemp("log") / "dashboard.log")
    yield running
    running.stop()


def trained_s(path: Path, actor: str) -> float:
    """Seconds in which a learner trained, from the file; its spans do not overlap."""
    lines = (json.loads(line) for line in (path / "events.jsonl").read_text().splitlines())
    own = (line for line in lines if line["actor"] == actor and line["kind"] == "train")
    return math.fsum(line["end_s"] - line["start_s"] for line in own)


def test_as_much_is_drawn_as_was_done_and_nothing_in_the_stop(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/long/timeline"))
    page.get_by_test_id("lane-learner-0").wait_for()
    until(page, lambda: sum(page.evaluate(INK, "lane-learner-0")) > 1, "a drawn lane")
    columns = page.evaluate(INK, "lane-learner-0")
    with urllib.request.urlopen(f"{dashboard.origin}/api/runs/long/timeline", timeout=30) as response:
        answer = json.load(response)
    assert answer["merged"] is True
    (stop,) = answer["stops"]
    assert stop["end"] - stop["start"] == pytest.approx(STOPPED_S)
    length = answer["to"] - answer["from"]
    drawn_s = sum(columns) / len(columns) * length
    assert drawn_s == pytest.approx(trained_s(dashboard.folder / "long", "learner-0"), rel=0.02)
    # All along, but for the stop, in which not a pixel is.
    at = [answer["from"] + (place + 0.5) * length / len(columns) for place in range(len(columns))]
    running = [ink for time_s, ink in zip(at, columns, strict=True) if not stop["start"] <= time_s <= stop["end"]]
    pixel_s = length / len(columns)
    stopped = [
        ink for time_s, ink in zip(at, columns, strict=True)
        if stop["start"] + 2 * pixel_s < time_s < stop["end"] - 2 * pixel_s
    ]  # fmt: skip
    assert min(running[1:-1]) > 0.1
    assert max(stopped) < 0.02


def test_a_pixel_tells_its_shares_and_the_stop_what_it_is(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/long/timeline"))
    page.get_by_test_id("lane-learner-0").wait_for()
    box = page.locator(".gantt-canvas").bounding_box()
    lane = page.get_by_test_id("lane-learner-0").bounding_box()
    card = page.get_by_test_id("span-card")
    page.mouse.move(box["x"] + 0.02 * box["width"], lane["y"] + 10)
    card.wait_for()
    assert "train" in card.inner_text()
    assert "zoom in for its spans" in card.inner_text()
    page.mouse.move(box["x"] + 0.5 * box["width"], lane["y"] + 10)
    until(page, lambda: "stopped" in card.inner_text(), "the stop")
    assert "resumed from step-000266" in card.inner_text()
    assert "8h" in card.inner_text()


def test_a_step_of_a_long_run_is_found_and_has_no_stop_in_it(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/long/timeline"))
    page.get_by_test_id("pick-step").select_option("266")
    page.get_by_test_id("step-time").first.wait_for()
    until(page, lambda: page.get_by_test_id("step-time").count() == 1, "one step in sight")
    assert "step 266" in page.get_by_test_id("step-time").inner_text()
    window = page.get_by_test_id("window").inner_text()
    start, end = (float(part) for part in window.split(" s")[0].split(" – "))
    assert 8 < end - start < 14
