"""What counts as the right final answer, case by case."""

import pytest

from reward.functions import REGISTRY
from reward.math.answer import answers_match, ground_truth_answer, math_reward
from reward.math.readings import vote_of
from tests.reward.normal_answers import RIGHT, UNFINISHED, WRONG
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


@pytest.mark.parametrize("truth", ["$$", " . ", r"\text{ }", "$ $", '""'])
def test_a_ground_truth_that_says_nothing_is_a_bad_row(truth: str) -> None:
    with pytest.raises(ValueError, match="says nothing that an answer could equal"):
        math_reward(item("5", truth))
    check_row = REGISTRY["math"].check_row
    assert check_row is not None
    with pytest.raises(ValueError, match="says nothing that an answer could equal"):
        check_row(item("", truth))
    check_row(item("", "5"))


@pytest.mark.parametrize(("completion", "ground_truth"), UNFINISHED)
def test_a_computation_is_left_open_only_where_the_run_allows_it(completion: str, ground_truth: str) -> None:
    assert math_reward(item(completion, ground_truth)) == 0.0
    assert math_reward(item(completion, ground_truth), allow_unfinished=True) == 1.0


@pytest.mark.parametrize(
    ("completion", "ground_truth"),
    [
        (r"\boxed{\frac{1}{2}}", "0.5"),
        (r"\boxed{3\frac{1}{2}}", "3.5"),
        (r"\boxed{50\%}", "0.5"),
        (r"\boxed{1.5\times10^3}", "1500"),
        (r"\boxed{3+4=7}", "7"),
        (r"\boxed{2\sqrt{4\cdot 3}}", r"4\sqrt{3}"),
        (r"\boxed{10^{-7}}", "0.0000001"),
        (r"\boxed{-10^3}", "-1000"),
        (r"\boxed{2, 1}", "1,2"),
        (r"\boxed{2^2\cdot 3}", r"2^2 \cdot 3"),
        (r"\boxed{4=x^2+y^2}", "x^2+y^2=4"),
    ],
)
def test_what_is_finished_or_no_plain_number_is_right(completion: str, ground_truth: str) -> None:
    assert math_reward(item(completion, ground_truth)) == 1.0


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
    assert not answers_match(r"9.1 \times 10^{-31}", r"1.6 \times 10^{-19}")
    assert not answers_match("0.067", r"\frac{1}{5 \times 3^{40}}")


def test_capitals_beside_their_small_letters_are_other_variables() -> None:
    assert not answers_match(r"\frac{r}{R}", r"\frac{R}{r}")
    assert answers_match("mM", "Mm")
    assert not answers_match("R^2-r^2", "r^2-R^2")


def test_votes_are_for_what_an_answer_says() -> None:
    votes = [vote_of(answer) for answer in ("1/2", "0.50", "x = 0.5", r"\frac{1}{2}", "$0.5$")]
    assert set(votes) == {r"\frac{1}{2}"}
    assert vote_of("(B)") == vote_of("option B") == "B"
    assert vote_of(r"\text{Cat}") == vote_of("cat.") == "cat" != vote_of("tac")


@pytest.mark.parametrize(
    "answer",
    [
        "A. B",
        "A: B",
        "(A) B",
        "(A) (B)",
        "A) B",
        "A. B. C. D",
        "A B",
        r"\textbf{(A)}\ B",
        r"A. $B$",
        "A. (B)",
        "A, B",
        "A or B",
    ],
)
@pytest.mark.parametrize("truth", ["A", "B", "(A)", "(B)", "a", "b"])
def test_a_choice_with_the_letter_of_another_is_for_neither(answer: str, truth: str) -> None:
    assert math_reward(item(rf"\boxed{{{answer}}}", truth)) == 0.0


@pytest.mark.parametrize(
    ("answer", "truth", "others"),
    [
        ("A. 12", "A", "BC"), (r"\textbf{(B)}\ 12", "B", "AC"), ("A. Paris", "A", "BP"), ("(A) A", "A", "B"),
        ("A. x", "A", "BC"), ("A. I", "A", "B"),
        ("(C) I, II", "C", "ABI"), ("B. A big one", "B", "A"), ("(A) B + 1", "A", "B"),
        ("(A) e", "e", "BCE"), ("A. b", "A", "B"), ("B. A triangle", "B", "A"),
    ],
)  # fmt: skip
def test_a_choice_with_its_text_is_for_its_letter(answer: str, truth: str, others: str) -> None:
    assert math_reward(item(rf"\boxed{{{answer}}}", truth)) == 1.0
    assert [other for other in others if math_reward(item(rf"\boxed{{{answer}}}", other)) != 0.0] == []
