r"""The accuracy reward for mathematics: 1 for a final answer that a reader would take for the truth, else 0.

`extraction` finds the answer, `readings` says what it may mean, plain numbers and equal texts are compared as they are,
and only formulas are parsed (`formula`) and evaluated (`equality`).
"""

import re
from functools import lru_cache

from reward.functions import register
from reward.math.equality import is_equal, is_near
from reward.math.extraction import extract_answer
from reward.math.formula import parse_formula
from reward.math.normalization import normalize_answer, split_list
from reward.math.plain_numbers import is_same_number, plain_number
from reward.math.readings import MAX_CHARS, Reading, approximate_sides, readings_of
from reward.math.words import CHANGING, compared_as_words, is_worded, split_choice, strip_text_commands, words_in
from reward.types import RewardInput

_GROUND_TRUTH_MARKS = ("boxed", "tag", "hashes")
_OTHER_CHOICE = re.compile(r"\([A-Z]\)")
# Not I, which is a number of Rome: "(C) I, II".
_LETTER_ALONE = re.compile(r"[(\[]?\s*([A-HJ])\s*(?:[)\].:,;/]|$)")
_LETTERS = re.compile(r"[(\[]?[A-HJ][)\]]?(?:[\s.,:;/&$]+[(\[]?[A-HJ][)\]]?)+[\s.$]*")
_LETTER = re.compile(r"[A-Za-z]")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_COMMAND_OR_CAPITAL = re.compile(r"\\[A-Za-z]+|[A-Z]")
_SPARE_LETTERS = (r"\xi", r"\kappa", r"\chi", r"\psi", r"\tau", r"\nu", r"\rho", r"\eta")
_LAST_CHOICE = "J"


def _warm_up() -> None:
    # The grammar's tables are built by use, and the scoring children are forked with them: these touch common rules.
    for answer in (
        r"\sqrt{49}", r"\sqrt[3]{x}", r"\frac{1+x}{2}", "(1,2)", r"\{1,2\}", "x=5y", r"2\sqrt{3}", "x^2+1", "x<2",
        r"\sin(\cos(x^{2}))", r"\log_{2}{8}+\ln(2)", "|x-1|", "n!", r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
        r"(-\infty,1]\cup[2,\infty)", r"1\pm\sqrt{2}", r"1<x\le 2", "3+4i", r"\binom{5}{2}", "f(x)=2x",
        r"(3,\frac{\pi}{2})", r"[1,2)",
    ):  # fmt: skip
        answers_match(answer, r"\frac{7}{3}+x")
    answers_match(r"\sqrt{2}", r"\sqrt{2}+\pi")


def math_reward(item: RewardInput, *, allow_unfinished: bool = False) -> float:
    """1 when the completion's final answer equals the ground truth, else 0 (also when it has no answer).

    A truth that is a plain number needs a plain number: a decimal, a fraction that is no whole number, a mixed number,
    a percentage or a power of ten. `allow_unfinished` takes `8/2`, `2^3` and `3+5` for 4, 8 and 8 too: then the
    question itself, said again, is an answer to a task of sums, and a policy learns to say it.

    Raises:
        ValueError: the prompt has no ground truth, or one that says nothing.
    """
    truth = _truth_of(item)
    answer = extract_answer(item.completion)
    return float(answer is not None and answers_match(answer.text, truth, allow_unfinished=allow_unfinished))


def _check_row(item: RewardInput, **_params: object) -> None:
    _truth_of(item)


register("math", check_row=_check_row, warm_up=_warm_up)(math_reward)


def _truth_of(item: RewardInput) -> str:
    """The answer in the row's ground truth. Raises ValueError for one that no answer can equal."""
    if item.ground_truth is None:
        raise ValueError("math needs a ground truth, and this prompt has none")
    truth = ground_truth_answer(item.ground_truth)
    if not normalize_answer(truth) and not compared_as_words(truth):
        raise ValueError(f"the ground truth {item.ground_truth!r} says nothing that an answer could equal")
    return truth


@lru_cache(maxsize=256)
def ground_truth_answer(ground_truth: str) -> str:
    """The answer in a ground truth: behind its mark where it is a whole solution ("... #### 72"), else all of it."""
    marked = extract_answer(ground_truth)
    return marked.text if marked is not None and marked.mark in _GROUND_TRUTH_MARKS else ground_truth


def answers_match(answer: str, ground_truth: str, *, allow_unfinished: bool = False) -> bool:
    """Whether two extracted answers say the same: as words, as a choice, as numbers or as formulas."""
    if len(answer) > MAX_CHARS:
        return False
    choice = _choices_match(answer, ground_truth)
    if choice is False:
        return False
    words = compared_as_words(ground_truth)
    # Words have no case, but r/R and R/r have.
    if words and compared_as_words(answer) == words and (is_worded(words) or not _mixed_capitals(ground_truth)):
        return True
    if choice is True:
        return True
    truths = readings_of(ground_truth)
    if not truths or is_worded(truths[0].formula):
        return False  # words are compared as words, above: any anagram of "cat" equals the product c a t
    readings = [reading for reading in readings_of(answer) if not is_worded(reading.formula)]
    if not _sides_agree(answer):
        return False
    is_number = any(truth.number is not None for truth in truths)
    needs_number = not allow_unfinished and any(_is_plain(truth) for truth in truths)
    for reading in readings:
        if reading.is_loose and not is_number:
            continue
        if needs_number and _is_unfinished(reading):
            continue
        if any(_says_the_same(reading, truth) for truth in truths if not truth.is_loose or reading.number is not None):
            return True
    return False


def _choices_match(answer: str, ground_truth: str) -> bool | None:
    """Whether both choose the same letter, for a truth that is one; None where it decides nothing."""
    truth = split_choice(ground_truth)
    if truth is None or truth[0] > _LAST_CHOICE:
        return None
    if not truth[1] and _names_several(answer):
        return False
    chosen = split_choice(answer)
    if chosen is None:
        return None
    # "(A) e" may be for the e that is a number, and "(A) B" is for neither A nor B.
    is_text = chosen[1].islower() and chosen[1] == ground_truth.strip(" $")
    if not truth[1] and chosen[1] and chosen[0] <= _LAST_CHOICE and not is_text:
        return chosen[0] == truth[0] and not _hedges(chosen)
    if _hedges(chosen):
        return None
    if truth[1] and chosen[1]:
        return chosen[0] == truth[0] and answers_match(chosen[1], truth[1])
    return True if chosen[0] == truth[0] else None


def _names_several(answer: str) -> bool:
    """Whether it is nothing but the letters of choices, and not all the same."""
    text = strip_text_commands(answer).strip(" $")
    return _LETTERS.fullmatch(text) is not None and len(set(re.findall("[A-Z]", text))) > 1


def _hedges(choice: tuple[str, str]) -> bool:
    """Whether what stands behind a choice takes it back, or names another."""
    letter, rest = choice
    alone = _LETTER_ALONE.match(rest)
    if alone is not None and alone[1] != letter:
        return True
    return _OTHER_CHOICE.search(rest) is not None or not CHANGING.isdisjoint(words_in(rest))


def _sides_agree(answer: str) -> bool:
    r"""Whether what stands on the sides of an answer's "\approx" is nearly the same: two guesses are no answer."""
    sides = approximate_sides(normalize_answer(answer))
    if len(sides) < 2:
        return True
    values = [parse_formula(readings_of(side)[0].formula) if readings_of(side) else None for side in sides]
    return all(value is not None and is_near(values[0], value) for value in values)


def _is_plain(truth: Reading) -> bool:
    """Whether a truth is one number: no list with a comma that some write for a point, and no equation of x and y."""
    return truth.number is not None and not truth.is_loose and (truth.equation is None or truth.name is not None)


def _is_unfinished(reading: Reading) -> bool:
    """Whether a reading leaves a computation open, where the truth is a plain number."""
    number = reading.number
    return number is None or number.is_quotient


def _says_the_same(answer: Reading, truth: Reading) -> bool:
    if truth.half_of_day is not None and answer.half_of_day != truth.half_of_day:
        return False
    if answer.base is not None or truth.base is not None:
        bases = {reading.base for reading in (answer, truth)} - {None}
        return len(bases) == 1 and answer.formula.lstrip("0").upper() == truth.formula.lstrip("0").upper()
    if answer.assignments and truth.assignments:
        return _assignments_match(answer, truth)
    if answer.equation is not None and truth.equation is not None:
        if answer.name is not None and answer.name == truth.name:
            return _formulas_match(answer, truth)
        return same_formula(answer.equation, truth.equation)
    if truth.equation is not None and truth.name is None:
        return False  # an equation of x and y is no value
    is_named = answer.equation is None and truth.equation is None and None not in (answer.name, truth.name)
    if is_named and answer.name != truth.name:
        return False  # x > 3 is not y > 3
    return _formulas_match(answer, truth)


def _assignments_match(answer: Reading, truth: Reading) -> bool:
    left = list(answer.assignments)
    for name, value in truth.assignments:
        partner = next((pair for pair in left if pair[0] == name and same_formula(pair[1], value)), None)
        if partner is None:
            return False
        left.remove(partner)
    return not left


def _formulas_match(answer: Reading, truth: Reading) -> bool:
    if answer.modulus is not None and answer.modulus == truth.modulus:
        numbers = (answer.number, truth.number)
        if numbers[0] is not None and numbers[1] is not None and answer.modulus.isdigit() and int(answer.modulus):
            return (numbers[0].value - numbers[1].value) % int(answer.modulus) == 0
    if same_formula(answer.formula, truth.formula):
        return True
    if answer.is_percent == truth.is_percent:
        return False
    # 50% is 0.5, and to a question for a percentage it is 50.
    return (
        same_formula(_hundredth(answer.formula), truth.formula)
        if answer.is_percent
        else same_formula(answer.formula, _hundredth(truth.formula))
    )


def _hundredth(formula: str) -> str:
    return ",".join(rf"\frac{{{element}}}{{100}}" for element in split_list(formula))


def same_formula(answer: str, truth: str) -> bool:
    """Whether two answers in normal form are equal: as texts, as plain numbers, else as parsed formulas."""
    if re.sub(r"\s+", "", answer) == re.sub(r"\s+", "", truth):
        return True
    number, true_number = plain_number(answer), plain_number(truth)
    if number is not None and true_number is not None:
        return is_same_number(number, true_number)
    if answer.startswith("\\{") != truth.startswith("\\{") and {answer[:1], truth[:1]} & {"(", "["}:
        return False  # {1, 2} is no pair and no interval
    answer, truth = _with_capitals_apart(answer, truth)
    parsed_truth = parse_formula(truth)
    if parsed_truth is None:
        return False
    parsed = parse_formula(answer)
    return parsed is not None and is_equal(parsed_truth, parsed)


def _with_capitals_apart(*formulas: str) -> tuple[str, ...]:
    """The formulas with other letters for capitals whose small letter stands beside them: the parser drops the case."""
    mixed = sorted({letter for formula in formulas for letter in _mixed_capitals(formula)})
    if not mixed:
        return formulas
    free = [name for name in _SPARE_LETTERS if not any(name in formula for formula in formulas)]
    names = dict(zip(mixed, free, strict=False))
    return tuple(
        _COMMAND_OR_CAPITAL.sub(lambda found: f"{names.get(found.group(), found.group())} ", formula)
        for formula in formulas
    )


def _mixed_capitals(formula: str) -> set[str]:
    """The capitals of a formula whose small letter stands in it too."""
    letters = set(_LETTER.findall(_COMMAND.sub(" ", formula)))
    return {letter for letter in letters if letter.isupper() and letter.lower() in letters}
