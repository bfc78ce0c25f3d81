"""What a hostile or runaway completion may cost, and that none of it is ever run as code."""

import sys
import time

import pytest

from reward.math.answer import math_reward
from reward.math.extraction import extract_answer
from reward.math.limits import is_within_limits
from tests.reward.hostile_answers import CODE, HOSTILE
from tests.reward.samples import item


@pytest.mark.parametrize("completion", HOSTILE, ids=lambda text: text[:24].encode("unicode_escape").decode())
def test_hostile_answers_are_wrong_and_cheap(completion: str) -> None:
    started_s = time.process_time()
    assert math_reward(item(completion, "5")) == 0.0
    assert time.process_time() - started_s < 1.0


# Processor time: how busy the machine is decides nothing.
@pytest.mark.parametrize("truth", ["x+y", r"\{1, 2\}", "(1, 2)", r"2\sqrt{3}", "1<x<2"])
def test_hostile_answers_are_cheap_for_other_kinds_of_truth(truth: str) -> None:
    started_s = time.process_time()
    assert [math_reward(item(completion, truth)) for completion in HOSTILE] == [0.0] * len(HOSTILE)
    assert time.process_time() - started_s < 10.0


_compiled: list[object] = []
_is_listening = False


def _listen(event: str, arguments: tuple[object, ...]) -> None:
    if _is_listening and event == "compile":
        _compiled.append(arguments[0])


def test_no_answer_is_ever_compiled_as_python() -> None:
    global _is_listening
    answers = [*HOSTILE, *CODE, "3 + 4", r"\boxed{1/2}", r"\boxed{x^2}", "The answer is 12 * 3.", r"\boxed{(1,2)}"]
    for answer in answers:  # whatever the libraries compile for themselves when they are first used
        math_reward(item(answer, "5"))
    sys.addaudithook(_listen)
    _is_listening = True
    try:
        compile("1", "the hook listens", "eval")
        heard = len(_compiled)
        for answer in answers:
            math_reward(item(answer + " ", "6"))
    finally:
        _is_listening = False
    assert heard == 1
    assert _compiled[heard:] == []


@pytest.mark.parametrize(
    "latex", ["7!", "2^{10}", r"\frac{1}{2}", "x^2 + y^2", r"\binom{10}{3}", r"30^{\circ}", r"e^{-x^2}"[:4], "(x+1)^2"]
)
def test_ordinary_answers_are_within_the_limits(latex: str) -> None:
    assert is_within_limits(latex)


@pytest.mark.parametrize(
    "latex", ["9^{9^9}", "x^{y^z}", "9^9^9", "(10^7)!", "10^7!", "301!", "a__b", "'", "x;y", "1" * 121]
)
def test_what_is_over_a_limit(latex: str) -> None:
    assert not is_within_limits(latex)


def test_extraction_reads_only_the_end_of_a_long_text() -> None:
    started_s = time.process_time()
    found = extract_answer("The answer is 5. " + "word " * 400_000 + "The answer is 6.")
    assert found is not None
    assert (found.text, found.mark) == ("6", "phrase")
    assert time.process_time() - started_s < 1.0
