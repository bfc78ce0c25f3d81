"""Where an answer in words, lists or grids is read from."""

import time

import pytest

from reward.rules.final_text import final_text, plain


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("Paris", "Paris"),
        ("  Paris \n", "Paris"),
        ("<answer>Paris</answer>", "Paris"),
        ("<answer>Rome</answer> no: <Answer>\n Paris \n</ANSWER> I think", "Paris"),
        ("<answer></answer>", ""),
        ("<answer>Rome</answer> <answer>Par", "Rome"),
        ("<answer>The answer is: 4 #### 5</answer>", "The answer is: 4 #### 5"),
        (r"\boxed{Rome} and \boxed{\text{Paris}}", "Paris"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{Paris} but \boxed{Ro", "Paris"),
        ("x\n#### Rome\n#### Paris\n", "Paris"),
        ("The answer is Paris.", "Paris"),
        ("**Answer:** Paris", "Paris"),
        ("Final answer: **Paris**. It is in France.", "Paris"),
        ("The answer is 3.5.", "3.5"),
        ("The answer is U.S. dollars", "U.S. dollars"),
        ("Answer:\n1 2\n3 4\n", "1 2\n3 4"),
        ("The answer is Rome. <answer>Paris</answer>", "Paris"),
        ("<answer>Paris</answer> The answer is Rome.", "Paris"),
        ("<think>The answer is Rome.</think>Paris", "Paris"),
        ("<think><answer>Rome</answer></think>Paris", "Paris"),
        ("The answer is Rome</think>Paris", "Paris"),
        ("<think>The answer is Rome.", ""),
        ("", ""),
    ],
)
def test_final_text(completion: str, answer: str) -> None:
    assert final_text(completion) == answer


def test_plain() -> None:
    assert plain(r"**$\text{B}$**") == "B"
    assert plain(r"\textbf{(B)}\ 12") == "(B) 12"


def test_it_takes_linear_time() -> None:
    texts = [r"\boxed{" * 20_000, "<answer>" * 50_000, "answer is " * 50_000, "#### x" * 50_000, " " * 400_000]
    started_s = time.monotonic()
    for text in texts:
        final_text(text)
    assert time.monotonic() - started_s < 2.0
