"""One prompt over steps and runs: two of its answers side by side, chosen by run, group and sample."""

from typing import Any

import pytest

from tests.browser.answers import ask, wait_for_index
from tests.browser.conftest import Complaints, Dashboard

pytestmark = pytest.mark.browser
RUN, OTHER = "healthy", "broken_grader"


def test_answers_of_two_steps_and_of_two_runs(dashboard: Dashboard, page: Any, complaints: Complaints) -> None:
    for run in (RUN, OTHER):
        wait_for_index(dashboard.origin, run)
    shared = ask(dashboard.origin, f"compare?runs={RUN},{OTHER}")["prompts"]
    uid = shared[0]["uid"]
    history = ask(dashboard.origin, f"runs/{RUN}/prompts/{uid}")["history"]
    other = ask(dashboard.origin, f"runs/{OTHER}/prompts/{uid}")["history"]
    first, last = history[0], history[-1]
    page.goto(dashboard.url(f"/r/{RUN}/group/{last['phase']}/{last['step']}/{last['group_id']}"))
    page.get_by_test_id("to-prompt").click()
    page.get_by_test_id("twoup").wait_for()
    texts = {}
    for side, visit in (("left", first), ("right", last)):
        group = ask(dashboard.origin, f"runs/{RUN}/groups/{visit['phase']}/{visit['step']}/{visit['group_id']}")
        texts[side] = [rollout["text"] for rollout in group["rollouts"]]
        assert (
            page.get_by_test_id(f"{side}-visit").input_value()
            == f"{visit['phase']}/{visit['step']}/{visit['group_id']}"
        )
        assert _shown(page, side) == _plain(texts[side][0])
    page.get_by_test_id("left-sample").select_option("1")
    page.wait_for_function("() => location.hash.includes('left=')")
    page.get_by_test_id("diff-left").get_by_test_id("to-tokens").get_by_text("#1").wait_for()
    assert _shown(page, "left") == _plain(texts["left"][1])
    page.reload()
    page.get_by_test_id("diff-left").get_by_test_id("to-tokens").get_by_text("#1").wait_for()
    page.get_by_test_id("right-run").select_option(OTHER)
    page.get_by_test_id("diff-right").get_by_test_id("to-tokens").get_by_text(OTHER).wait_for()
    visit = other[-1]
    assert page.get_by_test_id("right-visit").input_value() == f"{visit['phase']}/{visit['step']}/{visit['group_id']}"


def test_a_run_that_was_never_asked_says_so(dashboard: Dashboard, page: Any, complaints: Complaints) -> None:
    complaints.expect("status of 404")
    wait_for_index(dashboard.origin, RUN)
    page.goto(dashboard.url(f"/r/{RUN}/prompt/no-such-prompt"))
    page.get_by_text("The run on the left and the right was never asked this.").wait_for()


def _shown(page: Any, side: str) -> str:
    return _plain(page.get_by_test_id(f"diff-{side}").locator(".gr-body").inner_text())


def _plain(text: str) -> str:
    return " ".join(text.split())
