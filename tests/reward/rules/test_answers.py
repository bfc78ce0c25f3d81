"""What completions stand for: one answer and one vote for what is judged alike."""

from typing import Any

import pytest

from reward.config import RewardFunctionConfig
from reward.rules.answers import Answer, answer_of
from reward.types import RewardInput, RewardOutcome, RewardResult
from reward.worker import with_answer
from tests.reward.samples import item

CHOICES = {"choices": ["Berlin", "Paris"]}


@pytest.mark.parametrize(
    ("function", "row", "completion", "text", "vote"),
    [
        ("math", {}, "The answer is 1,234", "1,234", "1234"),
        ("format", {}, "<answer>4</answer>", "4", "4"),
        ("code", {}, "```python\nprint(3)\n```\nThe answer is 4", "print(3)", "print(3)"),
        ("sql", {}, "```sql\nselect  1\n from t;\n```", "select  1\n from t;", "select 1 from t"),
        ("json_schema", {}, '{"b": 1,\n"a": 2}', '{"b": 1,\n"a": 2}', '{"a": 2, "b": 1}'),
        ("json_schema", {}, "{b: 1}", "{b: 1}", "{b: 1}"),
        ("multiple_choice", CHOICES, "The answer is (B).", "B", "B"),
        ("multiple_choice", CHOICES, "Paris", "B", "B"),
        ("multiple_choice", CHOICES, "both of the 2", None, None),
        ("multiple_choice", {"choices": 3}, "B", None, None),
        ("quantity", {}, "v = \\boxed{10\\,\\text{m/s}}", "10 m/s", "10 m/s"),
        ("quantity", {}, "no idea", None, None),
        ("text_match", {}, "The answer is The Big Apple.", "The Big Apple", "big apple"),
        ("token_f1", {}, "Rome", "Rome", "rome"),
        ("reasoning_gym", {}, "<answer>1 2\n3 4</answer>", "1 2\n3 4", "1 2\n3 4"),
        ("exact_match", {}, "It is 4", None, None),
        ("instructions", {}, "It is 4", None, None),
    ],
)
def test_answers(function: str, row: dict[str, Any], completion: str, text: str | None, vote: str | None) -> None:
    found = answer_of(RewardFunctionConfig(function=function), item(completion, row=row))
    assert (found.text, found.vote) == (text, vote)


def test_the_params_of_the_function_count_and_a_model_s_answers_are_read_as_those_of_math() -> None:
    config = RewardFunctionConfig(function="multiple_choice", params={"options": "o", "zero_based": False})
    assert answer_of(config, item("Paris", row={"o": ["Paris"]})).text == "A"
    assert answer_of(None, item("#### 12")).vote == "12"


def test_an_answer_that_cannot_be_read_costs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_function: RewardFunctionConfig | None, _item: RewardInput) -> Answer:
        raise OverflowError(34, "Numerical result out of range")

    scored = RewardResult(outcome=RewardOutcome.OK, reward=0.0)
    assert with_answer(scored, item("#### 12"), None).answer == "12"
    monkeypatch.setattr("reward.worker.answer_of", fails)
    found = with_answer(scored, item("#### 12"), None)
    assert (found.reward, found.answer, found.vote) == (0.0, None, "#### 12")
