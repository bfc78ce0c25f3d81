"""Which components score which row, and the mistakes that are told before a run."""

from collections.abc import Mapping

import pytest

from reward.components import check_components_are_used, column_value, components_of, why_unscored
from reward.config import RewardConfig
from reward.row_checks import bad_rows
from rollout.errors import ConfigError
from tests.reward.samples import prompt

MATH = {"function": "math", "rows": {"source": ["gsm8k", "math"]}}
CODE = {"function": "code", "rows": {"source": "mbpp"}}
FORMAT = {"function": "format", "weight": 0.1}


def config(*functions: Mapping[str, object], **fields: object) -> RewardConfig:
    return RewardConfig.model_validate({"functions": functions, **fields})


def test_by_a_column_with_one_value_or_several() -> None:
    mixed = config(FORMAT, MATH, CODE, accuracy=None)
    assert components_of(mixed, "t", {"source": "gsm8k"}).numbers == (0, 1)
    assert components_of(mixed, "t", {"source": "math"}).numbers == (0, 1)
    assert components_of(mixed, "t", {"source": "mbpp"}).numbers == (0, 2)
    assert components_of(mixed, "t", {}).numbers == (0,)


def test_by_task_and_by_both() -> None:
    by_task = config({"function": "math", "tasks": ["a", "b"]}, {"function": "length_penalty", "tasks": ["c"]})
    assert [components_of(by_task, task, {}).numbers for task in "abcd"] == [(0,), (0,), (1,), ()]
    both = config({"function": "math", "tasks": ["a"], "rows": {"level": [1], "kind": "x"}})
    rows: list[dict[str, object]] = [{"level": 1, "kind": "x"}, {"level": 2, "kind": "x"}, {"level": 1}]
    assert [components_of(both, "a", row).numbers for row in rows] == [(0,), (), ()]
    assert components_of(both, "b", rows[0]).numbers == ()


def test_true_is_no_1_and_a_missing_column_is_null() -> None:
    truth = config({"function": "math", "rows": {"verified": [True]}}, {"function": "format", "rows": {"x": None}})
    assert components_of(truth, "t", {"verified": True, "x": 0}).numbers == (0,)
    assert components_of(truth, "t", {"verified": 1, "x": 0}).numbers == ()
    assert components_of(truth, "t", {}).numbers == (1,)
    assert components_of(config({"function": "math", "rows": {"level": [1]}}), "t", {"level": 1.0}).numbers == (0,)


def test_a_column_in_a_column() -> None:
    row = {"extra": {"kind": "sql", "a": {"b": 3}}, "extra.kind": "own", "text": "x"}
    assert column_value(row, "extra.kind") == "own"
    assert column_value(row, "extra.a.b") == 3
    assert column_value(row, "text.length") is None
    assert column_value(row, "nothing") is None


def test_accuracy_is_the_first_that_scores_the_row() -> None:
    mixed = config(MATH, CODE, FORMAT)
    assert components_of(mixed, "t", {"source": "mbpp"}).accuracy == "code"
    assert components_of(mixed, "t", {"source": "gsm8k"}).accuracy == "math"
    assert components_of(mixed, "t", {"source": "other"}).accuracy == "format"
    named = config(MATH, CODE, FORMAT, accuracy="math")
    assert components_of(named, "t", {"source": "gsm8k"}).accuracy == "math"
    assert components_of(named, "t", {"source": "mbpp"}).accuracy is None
    assert (why_unscored(named, prompt(row={"source": "mbpp"})) or "").startswith(
        "reward.accuracy is 'math', which does not score it; leave that null"
    )


def test_a_model_may_be_for_some_rows_too() -> None:
    judged = config(MATH, reward_model={"path": "m", "name": "judge", "tasks": ["chat"]})
    assert components_of(judged, "chat", {"source": "math"}).numbers == (0, 1)
    assert components_of(judged, "chat", {}) == components_of(judged, "chat", {"source": None})
    assert components_of(judged, "chat", {}).accuracy == "judge"


def test_rows_for_which_there_is_no_component() -> None:
    mixed = config(MATH, CODE)
    prompts = [prompt(row={"source": "gsm8k"}), prompt(row={"source": "gsm9k"}, task="sums")]
    assert bad_rows(mixed, prompts) == {
        1: "no component of the reward is for it (its task is 'sums', source is 'gsm9k'); give it one in "
        "reward.functions, by `tasks` or `rows`"
    }


def test_rows_that_a_function_cannot_score_are_found_by_those_that_score_them() -> None:
    exact = {"function": "exact_match", "rows": {"kind": "text"}}
    tagged = {"function": "regex", "params": {"pattern": "(a)", "group": 1}, "rows": {"kind": "tag"}}
    prompts = [
        prompt("1", {"kind": "text"}), prompt(None, {"kind": "text"}), prompt(" ", {"kind": "tag"}),
        prompt(None, {"kind": "other"}),
    ]  # fmt: skip
    assert bad_rows(config(exact, tagged, FORMAT), prompts) == {
        1: "exact_match: it needs a ground truth, and the row has none",
        2: "regex: it needs a ground truth, and the row has none",
    }


def test_a_component_that_would_score_nothing() -> None:
    prompts = [prompt(row={"source": source}) for source in ("gsm8k", "math", "apps")]
    check_components_are_used(config(MATH, FORMAT), prompts)
    with pytest.raises(ConfigError) as raised:
        check_components_are_used(config(MATH, CODE), prompts)
    assert str(raised.value) == (
        "reward component 'code' scores none of the 3 rows: it is for source 'mbpp', and they have source 'gsm8k', "
        "'math', 'apps'; correct that, or leave the component out"
    )
