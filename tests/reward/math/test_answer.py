"""What counts as the right final answer, case by case."""

import pytest

from reward.math.answer import answers_match, ground_truth_answer, math_reward
from tests.reward.normal_answers import RIGHT, WRONG
from tests.reward.samples import item


@pytest.mark.parametrize(("completion", "ground_truth"), RIGHT)
def test_right(completion: str, ground_truth: str) -> None:
    assert math_reward(item(completion, ground_truth)) == 1.0


@pytest.mark.parametrize(("completion", "ground_truth"), WRONG)
def test_wrong(completion: str, ground_truth: str) -> None:
    assert math_reward(item(completion, ground_truth)) == 0.0


def test_the_table_is_thorough() -> None:
    assert len(set(RIGHT)) >= 200
    assert len(set(WRONG)) >= 50


def test_no_ground_truth_is_an_error_and_not_a_wrong_answer() -> None:
    with pytest.raises(ValueError, match="needs a ground truth"):
        math_reward(item("5", None))


def test_the_answer_in_a_ground_truth() -> None:
    assert ground_truth_answer("Natalia sold 48/2 = <<48/2=24>>24 clips.\n#### 72") == "72"
    assert ground_truth_answer(r"We find $x=3$, so \boxed{3}.") == "3"
    assert ground_truth_answer("1,234") == "1,234"
    assert ground_truth_answer("x^2 + 1") == "x^2 + 1"


def test_small_truths_are_compared_to_their_own_digits() -> None:
    # Six decimal places alone would call everything below 5e-7 equal to zero.
    assert not answers_match(r"1 \times 10^{-8}", r"2 \times 10^{-8}")
    assert answers_match(r"2.0 \times 10^{-8}", "0.00000002")
    assert not answers_match("0", "0.00000002")
