"""A group: its answers side by side, in order, clustered, compared, folded; what is wrong with it; its past."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import pytest

from tests.browser.answers import ask, rollouts, wait_for_index
from tests.browser.conftest import Complaints, Dashboard, start_dashboard
from tests.browser.crafted_run import COMMON, STEP, craft

pytestmark = pytest.mark.browser
RUN = "healthy"


@pytest.fixture(scope="module")
def crafted(demo_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dashboard, list[str]]]:
    """A dashboard over a crafted run, and the ids of its rewritten groups."""
    folder = tmp_path_factory.mktemp("crafted")
    ids = craft(demo_runs / RUN, folder / "runs" / "crafted")
    running = start_dashboard(folder / "runs", folder / "dashboard.log")
    wait_for_index(running.origin, "crafted")
    yield running, ids
    running.stop()


@pytest.fixture
def address(dashboard: Dashboard) -> str:
    """A group with right and wrong answers, trained on in a later epoch."""
    wait_for_index(dashboard.origin, RUN)
    found = rollouts(dashboard.origin, RUN, filter="pass_rate>0.2 & pass_rate<0.8 & epoch>=2 & trained")["rows"][0]
    return f"{found['phase']}/{found['step']}/{found['group_id']}"


@pytest.fixture
def group(dashboard: Dashboard, address: str, page: Any) -> Any:
    """Its page."""
    page.goto(dashboard.url(f"/r/{RUN}/group/{address}"))
    page.get_by_test_id("column").first.wait_for()
    return page


def _address(visit: Any) -> str:
    return f"{visit['phase']}/{visit['step']}/{visit['group_id']}"


def _samples(page: Any) -> list[int]:
    return [int(column.get_attribute("data-sample")) for column in page.get_by_test_id("column").all()]


def _expect_samples(page: Any, samples: list[int]) -> None:
    page.wait_for_function(
        "wanted => JSON.stringify([...document.querySelectorAll('[data-testid=column]')].map(c => +c.dataset.sample))"
        " === JSON.stringify(wanted)",
        arg=samples,
    )


def test_prompt_truth_and_every_answer_are_there(dashboard: Dashboard, address: str, group: Any) -> None:
    answer = ask(dashboard.origin, f"runs/{RUN}/groups/{address}")
    assert group.get_by_test_id("question").inner_text() == answer["question"]
    assert group.get_by_test_id("truth").inner_text() == answer["truth"]
    assert _samples(group) == [one["sample_index"] for one in answer["rollouts"]]
    for column, rollout in zip(group.get_by_test_id("column").all(), answer["rollouts"], strict=True):
        text = column.inner_text()
        assert rollout["answer"] in text
        assert f"{rollout['length']} tokens" in text
        assert rollout["text"].split()[-1] in text


def test_columns_are_put_in_order(dashboard: Dashboard, address: str, group: Any) -> None:
    answers = ask(dashboard.origin, f"runs/{RUN}/groups/{address}")["rollouts"]
    for name, key in (("reward", lambda one: -one["reward"]), ("length", lambda one: one["length"])):
        group.get_by_test_id("order").get_by_text(name).click()
        _expect_samples(group, [one["sample_index"] for one in sorted(answers, key=key)])
        assert f"order={name}" in group.url
    group.reload()
    _expect_samples(group, [one["sample_index"] for one in sorted(answers, key=lambda one: one["length"])])


def test_a_cluster_of_answers_filters_the_columns(dashboard: Dashboard, address: str, group: Any) -> None:
    clusters = ask(dashboard.origin, f"runs/{RUN}/groups/{address}")["clusters"]
    assert len(clusters) >= 2
    buttons = group.get_by_test_id("clusters").get_by_role("button")
    assert buttons.count() == len(clusters)
    assert f"{clusters[1]['count']}×" in buttons.nth(1).inner_text()
    buttons.nth(1).click()
    _expect_samples(group, sorted(clusters[1]["samples"]))
    buttons.nth(1).click()
    _expect_samples(group, sorted(sample for cluster in clusters for sample in cluster["samples"]))


def test_two_answers_are_compared_word_by_word(dashboard: Dashboard, address: str, group: Any) -> None:
    answers = ask(dashboard.origin, f"runs/{RUN}/groups/{address}")["rollouts"]
    other = next(one for one in answers if one["text"] != answers[0]["text"])
    assert group.get_by_test_id("diff").is_disabled()
    for key in ("j", "x"):
        group.keyboard.press(key)
    group.get_by_role("button", name=f"compare sample {other['sample_index']}", exact=True).click()
    group.keyboard.press("c")
    left = group.get_by_test_id("diff-left").locator(".gr-body")
    right = group.get_by_test_id("diff-right").locator(".gr-body")
    left.wait_for()
    assert "".join(left.all_text_contents()) == answers[0]["text"]
    assert "".join(right.all_text_contents()) == other["text"]
    assert left.locator("mark").count() + right.locator("mark").count() > 0
    group.reload()
    group.get_by_test_id("twoup").wait_for()
    group.get_by_test_id("diff").click()
    group.get_by_test_id("column").first.wait_for()


def test_keys_choose_a_column_and_open_its_tokens(dashboard: Dashboard, address: str, group: Any) -> None:
    for key in ("j", "j", "j", "k", "Enter"):
        group.keyboard.press(key)
    group.get_by_test_id("rollout-page").wait_for()
    assert group.url.endswith(f"/rollout/{address}/1")
    group.keyboard.press("u")
    group.get_by_test_id("group-page").wait_for()


def test_groups_are_neighbours(dashboard: Dashboard, address: str, group: Any) -> None:
    beside = ask(dashboard.origin, f"runs/{RUN}/groups/{address}")["next"]
    group.keyboard.press("J")
    group.wait_for_function("end => location.hash.endsWith(end)", arg=beside)
    group.get_by_text("previous group").click()
    group.wait_for_function("end => location.hash.endsWith(end)", arg=address)


def test_the_history_links_to_the_prompt_s_other_groups(dashboard: Dashboard, address: str, group: Any) -> None:
    answer = ask(dashboard.origin, f"runs/{RUN}/groups/{address}")
    points = group.get_by_test_id("history").get_by_role("link")
    assert points.count() == len(answer["history"]) >= 2
    first = answer["history"][0]
    points.first.locator("circle.reach").click()
    group.wait_for_function("id => location.hash.endsWith(id)", arg=first["group_id"])
    states = group.get_by_test_id("ledger-life").locator("b")
    states.last.wait_for()
    assert states.first.inner_text() == "leased"
    assert states.last.inner_text() == "consumed"
    times = [entry["time_s"] for entry in ask(dashboard.origin, f"runs/{RUN}/groups/{_address(first)}")["ledger"]]
    group.keyboard.press("t")
    group.wait_for_function("() => location.hash.includes('/timeline')")
    params = parse_qs(group.url.split("?")[1])
    assert float(params["from"][0]) < min(times) <= max(times) < float(params["to"][0])


def test_the_common_beginning_is_folded_and_the_parting_marked(
    crafted: tuple[Dashboard, list[str]], page: Any, complaints: Complaints
) -> None:
    running, ids = crafted
    complaints.allowed_origins.add(running.origin)
    page.goto(running.url(f"/r/crafted/group/train/{STEP}/{ids[1]}"))
    column = page.get_by_test_id("column").first
    column.get_by_test_id("unfold").wait_for()
    assert COMMON not in column.inner_text()
    assert column.get_by_test_id("divergence").count() == 1
    column.get_by_test_id("unfold").click()
    for number, unfolded in enumerate(page.get_by_test_id("column").all()):
        text = unfolded.locator(".gr-body").inner_text()
        assert text.startswith(COMMON.strip())
        assert text.index("‸") < text.index(f"{number} or so")


def test_the_same_answer_with_another_reward_is_flagged(
    crafted: tuple[Dashboard, list[str]], page: Any, complaints: Complaints
) -> None:
    running, ids = crafted
    complaints.allowed_origins.add(running.origin)
    page.goto(running.url(f"/r/crafted/group/train/{STEP}/{quote(ids[2])}"))
    flag = page.locator("[data-testid=flag][data-kind=same_answer_different_reward]")
    flag.wait_for()
    assert "#0, #1" in flag.inner_text()
    marked = page.get_by_test_id("column").filter(has_text="graded apart")
    assert [int(column.get_attribute("data-sample")) for column in marked.all()][:2] == [0, 1]


def test_hostile_text_stays_text(crafted: tuple[Dashboard, list[str]], page: Any, complaints: Complaints) -> None:
    running, ids = crafted
    complaints.allowed_origins.add(running.origin)
    page.goto(running.url(f"/r/crafted/group/train/{STEP}/{ids[0]}"))
    page.get_by_test_id("column").nth(3).wait_for()
    hostile = page.get_by_test_id("column").nth(1).locator(".gr-body")
    assert "<script>window.hacked=1</script>" in hostile.inner_text()
    for chip in ("RLO", "ZWSP", "NUL", "ESC[31m"):
        assert hostile.locator(".chip", has_text=chip).count() >= 1, chip
    page.get_by_test_id("column").nth(3).get_by_text("show all 1,000,000 characters").wait_for()
    assert page.evaluate("window.hacked") is None
    assert page.locator("svg[onload], img").count() == 0
