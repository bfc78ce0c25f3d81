"""The list of runs: found by tags, without what is archived."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard.files.run_tags import RunTags, write_tags
from tests.browser.conftest import Complaints, Dashboard, start_dashboard
from tests.cluster.dashboard.small_run import make_run

pytestmark = pytest.mark.browser


@pytest.fixture
def tagged(tmp_path: Path) -> Iterator[Dashboard]:
    for name in ("one", "two", "old"):
        make_run(tmp_path / "runs" / name)
    write_tags(tmp_path / "runs" / "one", RunTags(tags=("sweep-3",)))
    write_tags(tmp_path / "runs" / "old", RunTags(archived=True))
    dashboard = start_dashboard(tmp_path / "runs", tmp_path / "dashboard.log")
    yield dashboard
    dashboard.stop()
    shutil.rmtree(tmp_path / "runs")


def test_tags_and_the_archive(tagged: Dashboard, page: Any, complaints: Complaints) -> None:
    complaints.allowed_origins.add(tagged.origin)

    def wait_for(names: list[str]) -> None:
        page.wait_for_function(
            "names => [...document.querySelectorAll('[data-testid=run-row]')]"
            ".map((row) => row.dataset.run).sort().join() === names",
            arg=",".join(names),
        )

    page.goto(tagged.url("/"))
    wait_for(["one", "two"])
    page.get_by_test_id("archived").click()
    wait_for(["old", "one", "two"])
    page.get_by_test_id("runs-find").fill("sweep")
    wait_for(["one"])
    page.get_by_text("sweep-3").wait_for()
