"""Which option a text chooses, and what a ground truth may be."""

import time

import pytest

from reward.config import RewardConfig
from reward.row_checks import bad_rows
from reward.rules.final_text import final_text
from reward.rules.multiple_choice import choice_in, multiple_choice
from tests.reward.samples import item, prompt

CITIES = {"A": "Berlin", "B": "Paris", "C": "Rome", "D": "a big one"}


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("B", "B"), ("b", "B"), ("(B)", "B"), ("B.", "B"), ("**B**", "B"), (r"\text{B}", "B"), ("$B$", "B"),
        ("Option B", "B"), ("choice (b)", "B"), ("B. Paris", "B"), ("(B) Paris", "B"), ("B: Paris", "B"),
        ("B - Paris", "B"), ("Paris", "B"), ("paris.", "B"), ("B) because it is in France", "B"),
        ("A big one", "D"), ("It must be (C), since (A) is in Germany, so (B)", "B"),
        # A label with the text of another option, several options, or a sentence that begins with the word "A".
        ("B. Rome", None), ("A, B", None), ("A or B", None), ("A. B.", None), ("(A) (B)", None),
        ("A city in France", None), ("Madrid", None), ("E", None), ("", None), ("I do not know", None),
    ],
)  # fmt: skip
def test_choice_in(text: str, chosen: str | None) -> None:
    assert choice_in(text, CITIES) == chosen


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("The answer is not (A)", None), ("neither (A) nor (B)", None), ("(A) is wrong", None), ("not (A)", None),
        ("The answer isn't (B).", None), ("It cannot be (A) or (B).", None), ("Neither (A), (B) nor (C).", None),
        ("I don't think (A) is right", None), ("Option (A) is not the right answer", None), ("A) is incorrect", None),
        ("We rule out (A), (B), and (D).", None), ("(A) isn’t correct", None), ("(A) cannot be the answer.", None),
        # What is left is the choice.
        ("(A) is wrong, so (B)", "B"), ("It is (B), not (A)", "B"), ("Not (A) but (B)", "B"), 
        ("(B) rather than (A)", "B"),
        ("The right one is (B). (A) is wrong.", "B"), ("We eliminate (A), (C) and (D), so (B).", "B"),
        ("(A) is wrong and (B) is right", "B"), ("It is not (A), (B) is right", "B"),
        # The question was for the one that is not so.
        ("(C) is not a mammal", "C"), ("(C) is false", "C"), ("All but one are true, and that is (C)", "C"),
        ("B. It is wrong to say so", "B"), ("(B) because it is not in Germany", "B"),
    ],
)  # fmt: skip
def test_a_choice_that_is_taken_back_is_none(text: str, chosen: str | None) -> None:
    assert choice_in(final_text(text), CITIES) == chosen
    assert choice_in(final_text(text), dict.fromkeys("ABCD", "")) == chosen


def test_a_long_text_of_denials_is_read_quickly() -> None:
    started_s = time.process_time()
    assert choice_in("neither (A), " * 10_000, CITIES) is None
    assert choice_in("(A) nor is " * 10_000, CITIES) == "A"
    assert time.process_time() - started_s < 2.0


def test_labels_that_are_no_letters_and_options_without_texts() -> None:
    assert choice_in("2", {"1": "x", "2": "y"}) == "2"
    assert choice_in("(3)", {"1": "x", "2": "y"}) is None
    assert choice_in("C", dict.fromkeys("ABC", "")) == "C"
    assert choice_in("same", {"A": "same", "B": "same"}) is None


@pytest.mark.parametrize(
    ("truth", "choices", "zero_based"),
    [
        ("B", ["Berlin", "Paris"], True),
        ("(b)", ["Berlin", "Paris"], True),
        ("1", ["Berlin", "Paris"], True),
        ("2", ["Berlin", "Paris"], False),
        ("Paris", ["Berlin", "Paris"], True),
        ("B", {"text": ["Berlin", "Paris"], "label": ["A", "B"]}, True),
        ("B", {"A": "Berlin", "B": "Paris"}, True),
        ("B", None, True),
    ],
)
def test_what_a_ground_truth_may_be(truth: str, choices: object, zero_based: bool) -> None:
    row = {"choices": choices} if choices is not None else {}
    scores = [
        multiple_choice(item(text, truth, row=row), zero_based=zero_based)
        for text in ("The answer is B.", "<answer>A</answer>", "neither")
    ]
    assert scores == [1.0, 0.0, 0.0]
    assert [score.detail for score in scores] == ["chooses B", "chooses A", "no one option is chosen"]


def test_labels_of_numbers_are_labels_before_they_are_places() -> None:
    row = {"choices": {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}}
    assert multiple_choice(item("2", "2", row=row)) == 1.0


def test_rows_that_cannot_be_scored() -> None:
    config = RewardConfig.model_validate({"functions": [{"function": "multiple_choice"}]})
    rows = [
        prompt("E", {"choices": ["x", "y"]}), prompt("2", {"choices": ["x", "y"]}), prompt(None, {"choices": ["x"]}),
        prompt("A", {"choices": "x, y"}), prompt("A", {"choices": []}), prompt("A", {"choices": ["x"]}),
    ]  # fmt: skip
    assert bad_rows(config, rows) == {
        0: "multiple_choice: the ground truth 'E' is none of its options (A 'x', B 'y')",
        1: "multiple_choice: the ground truth '2' is none of its options (A 'x', B 'y')",
        2: "multiple_choice: it needs a ground truth, and the row has none",
        3: "multiple_choice: column 'choices' holds str, expected a list of options or a mapping",
        4: "multiple_choice: column 'choices' holds 0 options and 0 labels, or no plain texts",
    }
