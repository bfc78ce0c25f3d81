"""Where the final answer of a completion is."""

import pytest

from reward.math.extraction import extract_answer
from reward.math.normalization import normalize_answer
from reward.math.prose import last_statement
from reward.math.words import comparable_words


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
        ("x = 7", "x = 7", "bare"),
        ("there is no number here", None, None),
        ("Tuesday", "Tuesday", "bare"),
        (r"\boxed{44}. The answer is correct.", "44", "boxed"),
        ("#### 44\nThe answer is correct.", "44", "hashes"),
        ("<answer>44</answer> The answer is clear.", "44", "tag"),
        ("It is 44. The answer is correct.", "44", "number"),
        (r"\boxed{5}. So the answer is 6", "5", "boxed"),
        (r"<answer>7</answer> but \boxed{8}", "8", "boxed"),
        ("#### Checking: 3 days\n\\boxed{5}\n#### Conclusion", "5", "boxed"),
        ("#### Tuesday", "Tuesday", "hashes"),
        (r"<think>\boxed{3}</think> The answer is 4.", "4", "phrase"),
        (r"<think>\boxed{3}</think> I hope that helps.", "3", "boxed"),
        (r"\boxed{5+7=12}", "12", "boxed"),
        ("#### 3 + 4 = 7", "7", "hashes"),
        (r"\boxed{2=x}", "2=x", "boxed"),
        (r"\boxed 44", "44", "boxed"),
        ("The answers are $1$ and $2$.", "1, 2", "phrase"),
    ],
)
def test_extract_answer(text: str, answer: str | None, mark: str | None) -> None:
    found = extract_answer(text)
    assert (found and found.text, found and found.mark) == (answer, mark)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("12, then 1,234.5", "1,234.5"),
        ("a -3", "-3"),
        ("it is 5%", "5%"),
        ("it rose by 33.5 percent", "33.5 percent"),
        ("2 1/2 cups", "2 1/2"),
        (r"\frac{3}{4} of", r"\frac{3}{4}"),
        ("version x2", None),
        ("1.5e3", "1.5e3"),
        ("on 3.", "3"),
        ("the area is 50 cm^2.", "50"),
        ("the area is 50 m^2.", "50"),
        ("it is $2^3$, so", "2^3"),
        ("I paid $5 and then $6 so total $11", "11"),
        ("the result is -1 + sqrt(3)", "-1 + sqrt(3)"),
        ("we get 3 + 4 = 7 apples", "3 + 4 = 7"),
        ("so it is 20, not 18", "20"),
        ("it is 41 or 42", "or 42"),
        ("It is twice 18", "twice 18"),
        ("18 million people", "18 million"),
        ("there were 1 000 of them", "1 000"),
        (r"\begin{pmatrix}1\\2\end{pmatrix} here", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ],
)
def test_the_last_formula_in_words(text: str, found: str | None) -> None:
    assert last_statement(text) == found


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
        ("twice 18", "twice 18"),
        (r"\text{not } 18", "not   18"),
        ("18 million", "18000000"),
        (r"15,\!000", "15000"),
        (r"11,\! 111,\! 100", "11111100"),
        ("5xy", "5xy"),
        ("5km", "5"),
        ("negative 5", "-5"),
        ("5 squared", "5 squared"),
        ("5 meters squared", "5"),
        (r"10\text{ hours and }30\text{ minutes}", "10 hours and 30"),
        ("2 apples, 3 pears", "2 apples, 3 pears"),
        ("12 cm, 15 cm", "12,15"),
        ("sqrt(18)", r"\sqrt{18}"),
        (r"4\pi\text{ cm}^2", r"4\pi"),
        (r"x + C", "x + C"),
    ],
)
def test_normalize_answer(text: str, normalized: str) -> None:
    assert normalize_answer(text) == normalized


def test_words_are_compared_without_case_punctuation_and_latex() -> None:
    assert comparable_words(r"\text{Tuesday}.") == comparable_words("tuesday") == "tuesday"
    assert comparable_words("(B)") == comparable_words("B.") == "b"
