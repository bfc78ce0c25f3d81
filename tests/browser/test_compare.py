"""Comparing runs: the picker, curves over three axes, figures with differences, the same prompt in both."""

import re
from typing import Any

import pytest

from tests.browser.answers import ask, wait_for_index
from tests.browser.conftest import Dashboard
from tests.browser.waiting import until

pytestmark = pytest.mark.browser


def open_compare(page: Any, dashboard: Dashboard, runs: str = "healthy,entropy_collapse", more: str = "") -> None:
    for run in runs.split(","):
        wait_for_index(dashboard.origin, run)
    page.goto(dashboard.url(f"/compare?runs={runs}{more}"))
    page.get_by_test_id("figures").wait_for()


def test_runs_are_picked_reordered_and_taken_away(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/compare"))
    page.get_by_text("Choose two runs to compare.").wait_for()
    page.get_by_test_id("add-run").select_option("healthy")
    page.get_by_test_id("picked-healthy").wait_for()
    page.get_by_test_id("add-run").select_option("stale_weights")
    page.wait_for_url(re.compile("runs=healthy%2Cstale_weights"))
    page.get_by_role("button", name="make base stale_weights").click()
    page.wait_for_url(re.compile("runs=stale_weights%2Chealthy"))
    assert "base" in page.get_by_test_id("picked-stale_weights").inner_text()
    page.get_by_label("remove healthy").click()
    until(page, lambda: page.url.endswith("runs=stale_weights"))
    assert page.get_by_test_id("add-run").locator("option").count() == len(dashboard.runs)  # others and "add a run"


def test_curves_of_both_over_steps_tokens_and_time(page: Any, dashboard: Dashboard) -> None:
    open_compare(page, dashboard)
    figure = page.locator("figure", has_text="Entropy").first
    figure.locator("canvas").wait_for()
    text = figure.inner_text()
    assert "healthy" in text
    assert "entropy_collapse" in text
    box = figure.locator(".u-over").bounding_box()
    for axis, label in (("tokens", "tokens"), ("time", "after"), ("step", "step")):
        page.get_by_test_id("axis").get_by_text(axis, exact=True).click()
        page.locator(f"[data-testid=axis] [data-value={axis}][aria-checked=true]").wait_for()
        page.mouse.move(box["x"] + box["width"] / 2 + len(axis), box["y"] + 30)
        figure.locator(".chart-place", has_text=re.compile(f"^{label} ")).wait_for()
    page.get_by_test_id("axis").get_by_text("tokens", exact=True).click()
    page.reload()
    page.locator("[data-testid=axis] [data-value=tokens][aria-checked=true]").wait_for()


def test_figures_tell_what_is_better_or_worse(page: Any, dashboard: Dashboard) -> None:
    open_compare(page, dashboard)
    reward = page.get_by_test_id("figures").locator("tr", has_text=re.compile("^Reward"))
    values = [float(number) for number in re.findall(r"\d+\.\d+", reward.inner_text())][:3]
    assert len(values) == 3
    assert values[1] < values[0]
    assert values[2] == pytest.approx(values[0] - values[1], abs=0.01)
    delta = reward.get_by_test_id("delta")
    assert "↓" in delta.inner_text()
    assert "bad" in (delta.get_attribute("class") or "").split()


def test_shares_are_in_percent_and_their_differences_in_points_with_an_interval(
    page: Any, dashboard: Dashboard
) -> None:
    open_compare(page, dashboard)
    accuracy = page.get_by_test_id("figures").locator('tr[title="accuracy_last"]')
    found = re.findall(r"(\d+(?:\.\d+)?)%", accuracy.inner_text())
    assert len(found) == 2
    better, worse = (float(value) for value in found)
    told = accuracy.get_by_test_id("delta").inner_text()
    assert re.fullmatch(r"↓ (\d+(?:\.\d+)?) points", told.strip()), told
    assert float(told.split()[1]) == pytest.approx(better - worse, abs=0.11)
    low, high = (
        float(value.replace("−", "-"))
        for value in accuracy.get_by_test_id("interval").inner_text().replace("+", "").split(" to ")
    )
    assert low < worse - better < high <= 0.0
    answer = ask(dashboard.origin, "compare?runs=healthy,entropy_collapse")
    wanted = next(line for line in answer["table"] if line["name"] == "accuracy_last")["intervals"]
    assert [low, high] == pytest.approx([100 * bound for bound in wanted["entropy_collapse"]], abs=0.06)
    assert page.get_by_test_id("figures").locator('tr[title="reward/mean"]').get_by_test_id("interval").count() == 1


def test_configurations_are_told_apart_or_told_equal(page: Any, dashboard: Dashboard) -> None:
    open_compare(page, dashboard)
    same = page.get_by_text("They have the same configuration.")
    assert same.count() + page.get_by_test_id("differences").count() == 1


def test_same_prompt_side_by_side(page: Any, dashboard: Dashboard) -> None:
    open_compare(page, dashboard)
    prompts = page.get_by_test_id("shared-prompt")
    prompts.first.wait_for()
    assert re.search(r"\d+%\s+\d+%", prompts.first.inner_text())
    prompts.first.click()
    for run in ("healthy", "entropy_collapse"):
        answers = page.get_by_test_id(f"answers-{run}")
        answers.locator("article").first.wait_for()
        assert answers.locator("article").count() == 4
        assert f"/r/{run}/rollout/train/" in answers.locator("article a").first.get_attribute("href")
    page.get_by_test_id("answers-healthy").get_by_test_id("all-answers").click()
    assert page.get_by_test_id("answers-healthy").locator("article").count() == 8
    assert "prompt=" in page.url
    page.reload()
    page.get_by_test_id("answers-healthy").locator("article").first.wait_for()


def test_prompts_are_found_by_their_question(page: Any, dashboard: Dashboard) -> None:
    open_compare(page, dashboard)
    prompts = page.get_by_test_id("shared-prompt")
    prompts.first.wait_for()
    question = prompts.nth(2).locator(".prompt-question").inner_text()
    page.get_by_test_id("prompt-search").fill(question)
    until(page, lambda: prompts.count() == 1)
    assert prompts.first.locator(".prompt-question").inner_text() == question


def test_a_run_that_is_not_there_is_told(page: Any, dashboard: Dashboard, complaints: Any) -> None:
    complaints.expect("status of 404")  # Chromium notes it in the console
    page.goto(dashboard.url("/compare?runs=healthy,nothere"))
    page.get_by_role("alert").wait_for()
    assert "nothere" in page.get_by_role("alert").inner_text()
