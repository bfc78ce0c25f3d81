"""An episode as a conversation, its tokens with what the world said set apart, and the filters that find it."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.browser.answers import wait_for_index
from tests.browser.conftest import Dashboard, start_dashboard
from tests.cluster.dashboard.episode_run import BOOK, HOSTILE, write_episode_run

pytestmark = pytest.mark.browser
GROUP = "000000-5f1c09be12aa03d4"
SINGLE = "000001-5f1c09be12aa03d4"


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """In the place of the one over the demo runs, which have no episodes."""
    folder = tmp_path_factory.mktemp("game")
    write_episode_run(folder / "runs" / "game")
    running = start_dashboard(folder / "runs", folder / "dashboard.log")
    wait_for_index(running.origin, "game")
    yield running
    running.stop()


@pytest.fixture
def open_sample(dashboard: Dashboard, page: Any) -> Any:
    """open_sample(sample, params="") -> the page of that episode."""

    def opened(sample: int, params: str = "", group: str = GROUP) -> Any:
        page.goto("about:blank")
        page.goto(dashboard.url(f"/r/game/rollout/train/0/{group}/{sample}{params}"))
        page.get_by_test_id("rollout-tabs").wait_for()
        return page

    return opened


def _texts(page: Any, testid: str) -> list[str]:
    return [
        item.locator(".cv-text").inner_text()
        for item in page.get_by_test_id("conversation").get_by_test_id(testid).all()
    ]


def test_an_episode_is_read_as_a_conversation(open_sample: Any) -> None:
    page = open_sample(1)
    assert "Guess my number from 1 to 100." in _texts(page, "opening")[0]
    assert _texts(page, "turn") == ["90", "80", "70", "60"]
    assert _texts(page, "heard") == ["lower"] * 3
    head = page.get_by_test_id("turn").nth(1).locator(".cv-head").inner_text()
    assert head.split() == ["model", "turn", "2", "2", "tokens", "stop", "tokens"], head
    end = page.get_by_test_id("episode-end").inner_text()
    assert " ".join(end.split()) == "ended with ▲ turns after 4 turns won 0 tries 4"
    facts = page.locator(".ro-facts").first.inner_text()
    assert "2, the others failed" in facts  # worlds
    assert "of it the world" in facts, facts
    print(facts)


def test_calls_results_and_long_texts(open_sample: Any) -> None:
    page = open_sample(2)
    first, last = page.get_by_test_id("turn").all()
    assert "calls look_up" in " ".join(first.inner_text().split())
    assert "length" in last.locator(".cv-head").inner_text()
    result = page.get_by_test_id("heard")
    assert result.locator(".cv-head").inner_text().split() == ["tool", "look_up"]
    whole = BOOK[0].heard[0].text
    assert whole.splitlines()[-1] not in result.inner_text()
    result.locator("button.fold").click()
    assert whole.splitlines()[-1] in result.inner_text()


def test_of_a_world_that_failed_its_message_is_read(open_sample: Any, dashboard: Dashboard) -> None:
    page = open_sample(0)
    page.goto(dashboard.url(f"/r/game/rollout/eval/1/{GROUP}/4"))
    page.get_by_test_id("failure").get_by_text("the environment failed: KeyError: 'door'").wait_for()
    assert "ended with ✖ failed after 0 turns" in " ".join(page.get_by_test_id("episode-end").inner_text().split())


def test_foreign_words_stay_text(open_sample: Any) -> None:
    page = open_sample(3)
    assert "<img src=x onerror=window.hacked=1>" in _texts(page, "heard")[0]
    assert page.evaluate("window.hacked") is None
    assert HOSTILE.count("\u202e") == 1
    assert "\u202e" not in page.get_by_test_id("conversation").inner_text()


def test_what_the_world_said_is_set_apart_among_the_tokens(open_sample: Any) -> None:
    """Of an episode of three turns of two tokens the world said the tokens between."""
    page = open_sample(0)
    page.get_by_test_id("turn").nth(1).get_by_role("link").click()
    tokens = page.get_by_test_id("tokens")
    tokens.wait_for()
    classes = tokens.locator("[data-t]").evaluate_all("all => all.map((one) => one.classList.contains('tk-world'))")
    turns = tokens.locator(".tk-turn").all_inner_texts()
    assert turns == ["turn 1", "turn 2", "turn 3"]
    assert classes.count(False) == 6
    assert classes[:2] == [False, False]
    assert classes[2]
    assert not any(classes[-2:])
    assert page.locator(".tk-bar").inner_text().endswith(f"6 sampled of {len(classes)} tokens")
    assert "said by the world" in page.get_by_test_id("legend").inner_text()
    tokens.locator("[data-t='2']").hover()
    card = page.get_by_test_id("token-card").inner_text()
    assert "said by the world" in card
    assert "−9" not in card  # the learner's log-probability of it is no figure
    tokens.locator("[data-t='1']").hover()
    page.get_by_test_id("token-card").get_by_text("turn 1").wait_for()
    assert "0.25" in page.get_by_test_id("token-card").inner_text()
    outliers = page.get_by_test_id("outliers").locator("li").count()
    assert outliers == 6  # each has an entropy of 1, and the world's 7 are none


def test_a_single_answer_looks_as_before(open_sample: Any) -> None:
    page = open_sample(0, group=SINGLE)
    page.get_by_test_id("tokens").wait_for()
    tabs = page.get_by_test_id("rollout-tabs").inner_text().split("\n")
    assert [tab for tab in tabs if tab.strip()] == ["Tokens", "Text", "Drawn", "Raw JSON"]
    assert page.locator(".tk-world, .tk-turn").count() == 0
    assert "world" not in page.get_by_test_id("rollout-page").inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_wider_than_a_telephone(open_sample: Any, theme: str) -> None:
    for sample, params in ((1, ""), (2, ""), (3, ""), (2, "?view=tokens")):
        page = open_sample(sample, params)
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": 390, "height": 844})
        page.locator("[data-testid=conversation], [data-testid=tokens]").first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, (sample, params)


def test_what_is_not_sampled_can_be_read_and_told_apart(open_sample: Any) -> None:
    """By its form, and not by a colour alone; in both themes."""
    page = open_sample(0, "?view=tokens")
    page.get_by_test_id("tokens").wait_for()
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        world, own = (
            page.locator(f"[data-testid=tokens] [data-t='{t}']").evaluate(
                "(one) => [getComputedStyle(one).fontStyle, getComputedStyle(one).backgroundImage]"
            )
            for t in (2, 0)
        )
        assert world[0] == "italic"
        assert "repeating-linear-gradient" in world[1]
        assert own == ["normal", "none"]


def test_rollouts_are_filtered_by_turns_and_ends(dashboard: Dashboard, page: Any) -> None:
    page.goto(
        dashboard.url(
            "/r/game/rollouts?filter=turns%3E%3D3%20%26%20phase%3Dtrain&cols=sample_index,turns,episode_outcome"
        )
    )
    page.get_by_test_id("rollout-row").nth(1).wait_for()
    rows = [row.inner_text().split() for row in page.get_by_test_id("rollout-row").all()]
    assert sorted(rows) == [["0", "3", "done"], ["1", "4", "turns"]]
    page.goto(dashboard.url("/r/game/overview"))
    group = page.get_by_test_id("group-episodes")
    group.wait_for()
    assert "How episodes end" in group.inner_text()


def test_the_table_of_a_run_with_episodes_says_how_they_went(dashboard: Dashboard, page: Any) -> None:
    page.goto(dashboard.url("/r/game/rollouts?filter=phase%3Dtrain&sort=reward"))
    page.get_by_test_id("rollout-row").first.wait_for()
    heads = [head.inner_text().split()[0] for head in page.get_by_role("columnheader").all() if head.inner_text()]
    assert heads[heads.index("finish") :][:3] == ["finish", "turns", "ended"]


def test_a_group_of_episodes_says_how_each_ended(dashboard: Dashboard, page: Any) -> None:
    page.goto(dashboard.url(f"/r/game/group/train/0/{GROUP}"))
    page.locator(".gr-col-facts").nth(3).wait_for()
    facts = [" ".join(one.inner_text().split()) for one in page.locator(".gr-col-facts").all()]
    ends = [
        "3 turns, ended with done",
        "4 turns, ended with turns",
        "2 turns, ended with tokens",
        "2 turns, ended with done",
    ]
    assert all(end in text for end, text in zip(ends, facts, strict=True)), facts
