"""An exported report, opened from the disk: its filters, views, search and sort find what the server finds in the same
steps, and its counts say how much of the run it has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote

import pytest

from cluster.dashboard.exports.report import Choice, export_report
from cluster.dashboard.index.filter_fields import VIEWS
from tests.browser.answers import address, ask, rollouts, wait_for_index
from tests.browser.conftest import Dashboard
from tests.browser.waiting import until

pytestmark = pytest.mark.browser
RUN = "broken_grader"
STEPS = ((0, 4), (20, 20), (39, 40))
IN_REPORT = "(step:0-4 | step:20-20 | step:39-40)"
"""The same as a filter."""
FILTERS = (
    "",
    "correct",
    "!correct & len>40",
    "reward<0.3",
    "reward<=0.3 | reward>0.9",
    "reward.math=1 & reward.length_penalty<-0.2",
    "reward.nothing=none",
    "gap>0.1 & entropy<0.6",
    "k3>=0.0001",
    "step:1-3 & phase=train",
    "step:39",
    "phase~ev",
    "adv=none",
    "adv!=none & trained",
    "answer=none",
    "answer!=none & !trained",
    "truncated | outcome!=ok",
    "disagreed",
    "pass_rate=0.25",
    "pass_rate<0.3 & reward_std>0.2",
    "repetition>0.02",
    "lag=0 & epoch>=0",
    'worker="sampler-1"',
    "worker!~SAMPLER-0",
    'question~"WHAT is 1"',
    'text~"So the"',
    '"the ANSWER"',
    "round",
    'text!~"\\\\boxed"',
    "(correct | len>60) & !(gap>0.2 | step:2-2)",
    "finish=stop & sample=1",
    "uid~0",
    "label=none & !bookmarked",
    "note~odd | bookmarked",
)
SORTS = ("-step", "", "-", "reward", "-max_gap", "question", "-answer", "-reward.math", "length")
WRONG = (
    "reward<",
    "reward<1 &",
    "(correct",
    "correct=1",
    "gpa>1",
    '"open',
    "text=x",
    "reward~1",
    "len>4x",
    "correct correct",
)


@pytest.fixture(scope="module")
def report(demo_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    written = export_report(demo_runs / RUN, path, Choice(steps=STEPS))
    assert list(written.steps) == [0, 1, 2, 3, 4, 20, 39]
    return path


@pytest.fixture
def opened(report: Path, dashboard: Dashboard, page: Any) -> Callable[[str], Any]:
    """opened(fragment) -> the page of the report. Loaded anew: what another address of the same file has shown stays in
    sight until the next is drawn, and would be taken for it."""
    wait_for_index(dashboard.origin, RUN)

    def show(fragment: str) -> Any:
        page.goto("about:blank")
        page.goto(f"{report.as_uri()}#/r/{RUN}/{fragment}")
        return page

    return show


def of_the_server(dashboard: Dashboard, filter: str, sort: str) -> tuple[int, list[str]]:
    """(how many of the report's steps pass, the first of them)."""
    asked = f"({filter}) & {IN_REPORT}" if filter else IN_REPORT
    found = rollouts(dashboard.origin, RUN, filter=asked, sort=sort, limit=25)
    return found["total"], [address(row) for row in found["rows"]]


GET = """async paths => {
  const { get } = await import("shoal/frame/api.js");
  const told = error => ({ status: error.status, error: error.message });
  return Promise.all(paths.map(path => get(path).catch(told)));
}"""


def of_the_report(page: Any, asked: list[tuple[str, str]]) -> list[Any]:
    paths = [
        f"/runs/{RUN}/rollouts?filter={quote(filter)}&sort={quote(sort)}&offset=0&limit=25" for filter, sort in asked
    ]
    return list(page.evaluate(GET, paths))


def test_filters_find_what_the_server_finds(opened: Any, dashboard: Dashboard) -> None:
    page = opened("rollouts")
    asked = [(filter, "-step") for filter in (*FILTERS, *(view.filter for view in VIEWS))]
    asked += [("!correct", sort) for sort in SORTS]
    found = of_the_report(page, asked)
    for (filter, sort), answer in zip(asked, found, strict=True):
        here = (answer["total"], [address(row) for row in answer["rows"]])
        assert here == of_the_server(dashboard, filter, sort), (filter, sort)
    totals = [answer["total"] for answer in found[: len(FILTERS)]]
    assert len(set(totals)) > len(FILTERS) / 2, "the filters tell rows apart"


def test_a_wrong_filter_is_told_as_the_server_tells_it(opened: Any, dashboard: Dashboard) -> None:
    page = opened("rollouts")
    for text, answer in zip(WRONG, of_the_report(page, [(text, "") for text in WRONG]), strict=True):
        with pytest.raises(HTTPError) as refused:
            rollouts(dashboard.origin, RUN, filter=text)
        assert answer["status"] == refused.value.code == 400
        told = refused.value.read().decode()
        if "did you mean" in told:
            assert answer["error"].startswith("filter, character 1: there is no field 'gpa'; fields: phase, step")
        else:
            assert f'"{answer["error"]}"' == told.split('"error":')[1].rstrip("}").replace('\\"', '"')


def shows_total(page: Any, total: int, wanted: str) -> None:
    until(page, lambda: page.get_by_test_id("total").inner_text() == f"{total:,}", wanted)


def test_views_search_sort_and_counts_on_the_page(opened: Any, dashboard: Dashboard) -> None:
    page = opened("rollouts")
    status = page.get_by_test_id("status")
    of_run = ask(dashboard.origin, f"runs/{RUN}")["info"]["num_rollouts"]
    of_report, _ = of_the_server(dashboard, "", "-step")
    assert 0 < of_report < of_run
    status.get_by_text(f"of the {of_report:,} in this report; the run has {of_run:,}").wait_for()
    for view in VIEWS:
        page.get_by_test_id("views").get_by_text(view.name).click()
        total, first = of_the_server(dashboard, view.filter, view.sort)
        shows_total(page, total, view.name)
        assert page.get_by_test_id("rollout-row").count() > 0 if first else page.get_by_test_id("none").is_visible()
    page.get_by_test_id("views").get_by_text("all", exact=True).click()
    page.get_by_test_id("search").fill("the answer")
    total, _ = of_the_server(dashboard, '"the answer"', "-step")
    shows_total(page, total, "searched")
    page.locator('[data-sort="length"]').click()
    until(page, lambda: "sort=-length" in page.url, "sorted")
    lengths = [row["length"] for row in of_the_report(page, [('"the answer"', "-length")])[0]["rows"]]
    assert lengths == sorted(lengths, reverse=True)


def test_every_row_leads_to_its_tokens_or_its_text(opened: Any) -> None:
    page = opened("rollouts?sort=length")
    rows = of_the_report(page, [("", "length")])[0]["rows"]
    seen = set()
    for row in rows[::6]:
        page = opened(f"rollout/{address(row)}")
        page.get_by_test_id("rollout-page").wait_for()
        tabs = page.get_by_test_id("rollout-tabs").inner_text().split("\n")
        seen.add(tabs[0])
        if tabs[0] == "Text":
            assert row["text"] in page.get_by_test_id("text-tab").inner_text()
    assert seen <= {"Tokens", "Text"}


def test_a_range_of_steps_narrows_the_overview(opened: Any) -> None:
    page = opened("overview?from=10&to=19")
    chart = page.get_by_test_id("chart-reward")
    chart.wait_for()
    assert chart.locator(".chart-box").get_attribute("aria-valuemax") == "9"
    assert chart.locator(".chart-box").get_attribute("aria-valuetext").startswith("step 19:")
