"""A group: what its answers have in common, and what is wrong with how they were judged."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard.records import GroupAddress
from cluster.dashboard.views.groups import answer_key, common_prefix, group_page
from cluster.record.run_directory import RunDirectory
from tests.cluster.dashboard.small_runs import (
    CUT,
    EQUAL,
    FAILED,
    MIXED,
    RIGHT,
    WRONG,
    Sample,
    config,
    open_store,
    write_evaluation,
    write_step,
)

FIRST = GroupAddress(phase="train", step=0, group_id="000000-0000000000000000")


def page_of(path: Path, samples: Sequence[Sample]) -> dict[str, Any]:
    run = RunDirectory.create(path / "run", config())
    write_step(run, 0, (samples, MIXED))
    page = group_page(open_store(run.path), FIRST)
    assert page is not None
    json.dumps(page, allow_nan=False)
    return page


def flags_of(page: dict[str, Any]) -> dict[str, list[int]]:
    return {flag["kind"]: flag["samples"] for flag in page["flags"]}


@pytest.mark.parametrize(
    ("texts", "length"),
    [
        (["The answer is 3", "The answer is 5"], 14),
        (["The answer is 30", "The answer is 35", "The sum"], 4),
        (["abc", "abd"], 0),
        (["a b", "a b"], 3),
        (["a b", "a b c"], 2),
        (["a\nb", "a\nc"], 2),
        (["", "a"], 0),
        (["alone"], 0),
        ([], 0),
    ],
)
def test_a_common_prefix_ends_at_white_space(texts: list[str], length: int) -> None:
    assert common_prefix(texts) == length


def test_a_common_prefix_is_counted_as_a_page_does() -> None:
    # Two UTF-16 units for the first, one for the space.
    assert common_prefix(["\U0001f600 a", "\U0001f600 b"]) == 3


@pytest.mark.parametrize(
    ("answer", "key"),
    [("$1,234$", "1234"), ("12 apples", "12"), ("１２", "12"), (" 3. ", "3"), ("", ""), (None, None)],
)
def test_answers_are_compared_in_one_form(answer: str | None, key: str | None) -> None:
    assert answer_key(answer) == key


def test_an_endless_answer_is_compared_as_it_is() -> None:
    assert answer_key("1," * 300) == "1," * 300


def test_a_group_with_its_answers(tmp_path: Path) -> None:
    page = page_of(tmp_path, MIXED)
    assert (page["question"], page["truth"], page["worker"], page["attempt"]) == (
        "What is 1 + 2?",
        "3",
        "sampler-0",
        1,
    )
    assert (page["status"], page["reason"], page["task"], page["epoch"]) == ("trained", "", "sums", 0)
    assert page["common_prefix"] == len("The answer ")
    assert [cluster["answer"] for cluster in page["clusters"]] == ["3", "5", "would"]
    assert page["clusters"][0] == {
        "answer": "3",
        "count": 2,
        "samples": [0, 2],
        "reward_mean": 1.0,
        "num_correct": 2,
    }
    assert [rollout["cluster"] for rollout in page["rollouts"]] == [0, 1, 0, 2]
    assert [rollout["text"] for rollout in page["rollouts"]] == [sample.text for sample in MIXED]
    assert page["flags"] == []
    assert page["previous"] is None
    assert page["next"] == "train/0/000001-0000000000000001"


def test_the_life_of_a_group_is_told_by_the_ledger(tmp_path: Path) -> None:
    page = page_of(tmp_path, MIXED)
    assert [(line["state"], line["step"]) for line in page["ledger"]] == [
        ("leased", None),
        ("sampled", None),
        ("scored", None),
        ("consumed", 0),
    ]


def test_a_prompt_has_a_history_over_the_epochs(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", config())
    for step in range(3):
        write_step(run, step, ((RIGHT,) * (step + 1) + (WRONG,) * (3 - step), EQUAL))
    page = group_page(open_store(run.path), FIRST)
    assert page is not None
    assert [(visit["step"], visit["epoch"], visit["pass_rate"]) for visit in page["history"]] == [
        (0, 0, 0.25),
        (1, 1, 0.5),
        (2, 2, 0.75),
    ]
    assert page["history"][2]["reward_mean"] == 0.75


def test_the_same_answer_with_another_verdict_is_flagged(tmp_path: Path) -> None:
    # "3" and "3." are the same answer.
    page = page_of(tmp_path, (RIGHT, Sample(text="It is 3.", reward=0.0), WRONG, WRONG))
    assert flags_of(page)["same_answer_different_reward"] == [0, 1]
    assert flags_of(page)["truth_called_wrong"] == [1]


def test_a_reward_that_differs_by_its_format_alone_is_not_a_broken_grader(tmp_path: Path) -> None:
    short = Sample(text="It is 3", reward=1.5, components={"math": 1.0, "short": 0.5})
    long = Sample(text="I think it is 3", reward=1.0, components={"math": 1.0, "short": 0.0})
    assert "same_answer_different_reward" not in flags_of(page_of(tmp_path, (short, long, WRONG, WRONG)))


def test_a_completion_that_was_not_scored_does_not_disagree(tmp_path: Path) -> None:
    page = page_of(tmp_path, (RIGHT, FAILED, Sample(text="The answer is 7", reward=0.0), WRONG))
    assert flags_of(page) == {"not_scored": [1]}


def test_completions_without_an_answer_are_together_and_last(tmp_path: Path) -> None:
    nothing = Sample(text="", reward=0.0, answer="")
    page = page_of(tmp_path, (nothing, nothing, nothing, RIGHT))
    assert page["clusters"][-1]["count"] in (1, 3)
    assert sum(cluster["count"] for cluster in page["clusters"]) == 4


def test_what_else_is_worth_a_look(tmp_path: Path) -> None:
    cut_but_right = Sample(text="It is 3", reward=1.0, finish=CUT.finish)
    assert flags_of(page_of(tmp_path, (cut_but_right, WRONG, WRONG, WRONG))) == {"right_but_truncated": [0]}


def test_equal_rewards_are_said_to_teach_nothing(tmp_path: Path) -> None:
    page = page_of(tmp_path, EQUAL)
    assert flags_of(page) == {"equal_rewards": [0, 1, 2, 3]}


def test_a_group_of_an_evaluation(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", config())
    write_evaluation(run, 0)
    address = GroupAddress(phase="eval", step=0, group_id="001000-0000000000000007")
    page = group_page(open_store(run.path), address)
    assert page is not None
    assert (page["status"], page["ledger"]) == ("evaluated", [])
    assert [(visit["phase"], visit["pass_rate"]) for visit in page["history"]] == [("eval", 0.5)]


def test_there_is_no_such_group(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", config())
    write_step(run, 0)
    store = open_store(run.path)
    for address in (
        GroupAddress(phase="train", step=0, group_id="nobody"),
        GroupAddress(phase="train", step=5, group_id=FIRST.group_id),
        GroupAddress(phase="eval", step=0, group_id=FIRST.group_id),
    ):
        assert group_page(store, address) is None
