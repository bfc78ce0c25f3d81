"""Where the final answer of a completion is."""

import pytest

from reward.math.extraction import extract_answer, last_number
from reward.math.normalization import comparable_words, normalize_answer


@pytest.mark.parametrize(
    ("text", "answer", "mark"),
    [
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}", "boxed"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}", "boxed"),
        (r"\boxed{3} then \fbox{4}", "4", "boxed"),
        (r"\boxed{} and \boxed{3} and \boxed{ }", "3", "boxed"),
        (r"\boxed{3} is right; \boxed{4", "3", "boxed"),
        ("<answer> 12 </answer>", "12", "tag"),
        ("<ANSWER>12</ANSWER>", "12", "tag"),
        (r"<answer>The answer is \boxed{12}.</answer>", "12", "boxed"),
        ("#### 1,234", "1,234", "hashes"),
        ("#### 5\n#### 6\nbye", "6", "hashes"),
        ("#### Step 2: add\nThe sum is 6", "6", "number"),
        ("The answer is 3.5.", "3.5", "phrase"),
        ("The answer is 3. But the correct answer is 4.", "4", "phrase"),
        ("Answer: 5 + 7 = 12", "12", "phrase"),
        ("The final answer is $\\frac{1}{2}$ of it", r"\frac{1}{2}", "phrase"),
        ("The answer is Tuesday.", "Tuesday", "phrase"),
        ("The answer is not clear from what is said", None, None),
        ("答案是42。", "42", "phrase"),
        ("He has 3 apples and 4 pears", "4", "number"),
        ("He has 3/4 of it", "3/4", "number"),
        ("x^2 + 1", "x^2 + 1", "bare"),
        ("3 + 4 = 7", "7", "bare"),
        ("no number", None, None),
    ],
)
def test_extract_answer(text: str, answer: str | None, mark: str | None) -> None:
    found = extract_answer(text)
    assert (found and found.text, found and found.mark) == (answer, mark)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12, then 1,234.5", "1,234.5"),
        ("a -3", "-3"),
        ("it is 5%", "5%"),
        ("2 1/2 cups", "2 1/2"),
        (r"\frac{3}{4} of", r"\frac{3}{4}"),
        ("version x2", None),
        ("1.5e3", "1.5e3"),
        ("on 3.", "3"),
    ],
)
def test_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("**$1,234.50**", "1234.50"),
        ("12 apples", "12"),
        ("5 km/h", "5"),
        (r"12\text{ cm}^2", "12"),
        ("3 1/2", r"(3+\frac{1}{2})"),
        ("１２", "12"),
        ("٣٫٥", "3.5"),
        ("−5", "-5"),
        ("1.234,56", "1234.56"),
        ("1{,}234", "1234"),
        ("(1,234)", "(1,234)"),
        ("1e-3", r"1\times 10^{-3}"),
        ("42个苹果", "42"),
        ("3个苹果和4个梨", "3个苹果和4个梨"),
        ("½", r"\frac{1}{2}"),
        ("10²", "10^{2}"),
        ("5x", "5x"),
        ("5 m", "5"),
        (r"\text{Tuesday}", "Tuesday"),
        ("7!", "7!"),
        ("50 percent", r"50\%"),
    ],
)
def test_normalize_answer(text: str, normalized: str) -> None:
    assert normalize_answer(text) == normalized


def test_words_are_compared_without_case_punctuation_and_latex() -> None:
    assert comparable_words(r"\text{Tuesday}.") == comparable_words("tuesday") == "tuesday"
    assert comparable_words("(B)") == comparable_words("B.") == "b"
