r"""The accuracy reward for mathematics: extraction is ours, comparison is math-verify's (`equality`).

An answer has several readings, since "1,234" may be a number or a pair; it is right when one of them equals the ground
truth.
"""

import re
from fractions import Fraction

from reward.functions import register
from reward.math.equality import exact_number, is_equal, parse_formula
from reward.math.extraction import extract_answer, numbers_in
from reward.math.normalization import comparable_words, normalize_answer
from reward.types import RewardInput

MAX_ANSWER_CHARS = 1000
"""A longer answer is none."""
# A number, an operator, a number: "3+4" is the question, not its answer. Powers of ten and mixed numbers are numbers.
_OPERATION = re.compile(r"[\d)}]\s*(?:[-+*/:]|\\times|\\cdot|\\div)\s*[\d.(\\{-]")
_TIMES_POWER_OF_TEN = re.compile(r"\s*\\(?:times|cdot)\s*10\s*\^")
_MIXED_NUMBER = re.compile(r"-?\(\d+\+(\\frac\{\d+\}\{\d+\})\)")
_ASSIGNMENT = re.compile(r"(?:^|(?<=,))\s*[A-Za-z](?:_\{?\w\}?)?\s*=\s*")
_GROUND_TRUTH_MARKS = ("boxed", "tag", "hashes")


def _warm_up() -> None:
    # The grammar's tables are built by use; these touch the common rules.
    for answer in ("7", "-1.5", r"\frac{1}{2}", "3 apples", "(1,2)", r"\{1,2\}", "x=5", r"50\%", r"2\sqrt{3}", "x^2+1"):
        answers_match(answer, r"\frac{7}{3}+x")
        answers_match(answer, answer)


def math_reward(item: RewardInput) -> float:
    """1 when the completion's final answer equals the ground truth, else 0 (also when it has no answer).

    Raises:
        ValueError: the prompt has no ground truth.
    """
    if item.ground_truth is None:
        raise ValueError("math needs a ground truth, and this prompt has none")
    answer = extract_answer(item.completion)
    return float(answer is not None and answers_match(answer.text, ground_truth_answer(item.ground_truth)))


register("math", warm_up=_warm_up)(math_reward)


def ground_truth_answer(ground_truth: str) -> str:
    """The answer in a ground truth: behind its mark where it is a whole solution ("... #### 72"), else all of it."""
    marked = extract_answer(ground_truth)
    return marked.text if marked is not None and marked.mark in _GROUND_TRUTH_MARKS else ground_truth


def answers_match(answer: str, ground_truth: str) -> bool:
    """Whether two extracted answers are equal: as exact numbers, as words, or as math-verify compares them."""
    truth = normalize_answer(ground_truth)
    if not truth or len(answer) > MAX_ANSWER_CHARS:
        return False
    words = comparable_words(ground_truth)
    if words and comparable_words(answer) == words:
        return True
    readings = _readings(answer, truth)
    exact_truth = exact_number(truth)
    if exact_truth is not None:
        # Otherwise a policy learns to box "12 * 7" instead of computing it: it is equal to 84 for any comparison.
        readings = [reading for reading in readings if not _is_unfinished(reading, exact_truth)]
        if any(exact_number(reading) == exact_truth for reading in readings):
            return True
    parsed_truth = parse_formula(truth)
    return parsed_truth is not None and any(is_equal(parsed_truth, reading) for reading in readings)


def _readings(answer: str, truth: str) -> list[str]:
    """What an answer may mean, the likeliest first; a set or pair is read as a number only for a numeric truth."""
    normalized = normalize_answer(answer)
    readings = [normalized]
    if "=" not in truth and normalized.count("=") > 1:
        readings.append(_ASSIGNMENT.sub("", normalized))  # "x=1, x=2" for "1, 2"
    if exact_number(truth) is None:
        return readings
    inside = normalized.strip("()[]{}\\ ")
    if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", inside):
        readings.append(inside.replace(",", ""))
    elif re.fullmatch(r"-?\d+,\d+", normalized):
        readings.append(normalized.replace(",", "."))  # the comma of most of Europe
    if parse_formula(normalized) is None or re.search(r"[A-Za-z]{3,}", re.sub(r"\\[A-Za-z]+", "", normalized)):
        # Words around one number: the number is the answer. Around several, nothing says which one is.
        numbers = numbers_in(normalized)
        if len(numbers) == 1:
            readings.append(normalize_answer(numbers[0]))
    return readings


def _is_unfinished(reading: str, truth: Fraction) -> bool:
    """Whether `reading` leaves a computation open, where the truth is a plain number."""
    if truth.denominator == 1 and re.fullmatch(r"-?\\frac\{-?\d+\}\{(?!1\})-?\d+\}", reading):
        return True  # 14/2 for 7
    return _OPERATION.search(_TIMES_POWER_OF_TEN.sub("", _MIXED_NUMBER.sub(r"\1", reading))) is not None
