"""Reward for a number with a unit, within a tolerance: 9.81 m/s^2, 1.2 x 10^3 kg, 3/4, 25 %."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from reward.components import column_value
from reward.functions import register
from reward.rules.final_text import marked_text
from reward.rules.units import Unit, parse_unit
from reward.thought import without_thought
from reward.types import ExplainedScore, RewardInput

MAX_TEXT_CHARS = 100_000
"""Of a longer completion only the end is read."""
_NUMBER = re.compile(
    # No exponent of a unit, as in s^2, s^{-1} and s-1.
    r"(?<![\w.^])(?<!\^[-−{])(?<!\^\{[-−])(?<![A-Za-z][-−])(?P<currency>[$€£])?\s?(?P<sign>[-+−])?\s?(?P<currency_inside>[$€£])?"
    r"(?:(?P<whole>\d{1,6})\s(?=\d{1,2}\s?/\s?\d))?"  # of 5 1/2
    r"(?P<digits>\d{1,3}(?:[,  ]\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)"
    r"(?:[eE](?P<exponent>[-+]?\d{1,3})(?!\w)"
    r"|\s?(?:[x×*·]|\btimes\b)\s?10\s?\^?\s?[{(]?(?P<power>[-+−]?\d{1,3})[)}]?(?!\d)"
    r"|\s?\^\s?(?P<opens>[{(]\s?)?(?P<raised>[-+−]?\d{1,3})(?(opens)\s?[)}])(?![\d.])"
    r"|\s?/\s?(?P<below>\d+(?:\.\d+)?)(?![\d.]))?"
    r"(?:\s?(?P<scale>hundred|thousand|million|billion|trillion)\b)?"
)
# What stands behind a number and makes it another, or part of a formula: 5!, 5^x, 5\pi, 5/x, 5 + x, 5 squared.
_OPERAND = r"(?:[\\(π\d]|[A-Za-z](?![A-Za-z])|(?:pi|sqrt|exp|sin|cos|tan|ln|log)(?![A-Za-z]))"
_GOES_ON = re.compile(
    rf"\s?(?:[\^!]|_\s?\{{?\d|[-+−*/]\s?{_OPERAND}|[·×]\s?(?:[\\(π]|[nxyz](?![A-Za-z]))"
    r"|π|(?:[nxyz]|pi)(?![A-Za-z])|\\(?:pi|sqrt|frac|pm|sin|cos|tan|ln|log|exp)(?![A-Za-z])"
    r"|(?:squared|cubed|factorial)\b)"
)
_SCALES = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}
# What may stand in front of the number without changing its value: a name with "=", or a word that says "about".
_LEAD = re.compile(
    r"(?:.*[=≈:~]|(?:about|approximately|approx\.?|around|roughly|nearly|is|equals|it is)?)\s*", re.I | re.S
)
# In their order: \cdot\text{m} would be one command if the text came first.
_LATEX = (
    (re.compile(r"\\times(?![a-zA-Z])"), "×"),
    (re.compile(r"\\cdot(?![a-zA-Z])"), "·"),
    (re.compile(r"\\approx(?![a-zA-Z])"), "≈"),
    (re.compile(r"\^\s?\{?\\circ\}?|\\degree(?![a-zA-Z])"), "°"),
    (re.compile(r"\\mu(?![a-zA-Z])\s?"), "µ"),
    (re.compile(r"\\Omega(?![a-zA-Z])"), "Ω"),
    (re.compile(r"\\(?:text|mathrm|mathbf|operatorname|rm|textbf)\s?\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\[dtc]?frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}"), r" \1/\2"),
    (re.compile(r"\\[,;:! ]|~"), " "),
    (re.compile(r"\\([%$])"), r"\1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\*\*|\\[()\[\]]"), ""),
)
_DEGREES = {"C": "°C", "F": "°F"}
_RAISED = re.compile(r"(?<=\d)([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A number, and the unit that stands with it.

    Example:
        Quantity(value=9.81, unit="m/s^2")
    """

    value: float
    unit: str
    """As written; "" for none."""


def _check(relative_tolerance: float = 0.01, absolute_tolerance: float = 0.0, **_others: object) -> None:
    for name, value in (("relative_tolerance", relative_tolerance), ("absolute_tolerance", absolute_tolerance)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} has to be at least 0, got {value}")


def _check_row(item: RewardInput, unit_column: str | None = None, **_others: object) -> None:
    _truth(item, unit_column)


@register("quantity", check=_check, check_row=_check_row)
def quantity(
    item: RewardInput,
    relative_tolerance: float = 0.01,
    absolute_tolerance: float = 0.0,
    unit: Literal["required", "optional", "ignored"] = "optional",
    unit_column: str | None = None,
) -> ExplainedScore:
    """1 when the answer is the ground truth's quantity within a tolerance, else 0.

    The answer is converted to the truth's unit (the one in column `unit_column`, where the ground truth is a number
    alone), and right when it differs by no more than `absolute_tolerance` (in that unit) or `relative_tolerance` times
    the truth, whichever is more. A unit of another dimension is wrong. Without a unit the answer is taken to be in the
    truth's, unless `unit` is `required`; `ignored` compares the numbers alone. A truth without a unit asks for none.

    It is read from what is marked as the answer, which has to hold one number; without a mark, the last number counts.

    Raises:
        ValueError: a ground truth that is no quantity.
    """
    truth, truth_unit = _truth(item, unit_column)
    given = answered_quantity(item.completion)
    if given is None:
        return ExplainedScore(0.0, "no quantity is given")
    values = _in_unit(given, truth.unit, truth_unit, unit)
    allowed = max(absolute_tolerance, relative_tolerance * abs(truth.value))
    # A distance of exactly the tolerance counts, also where the subtraction rounds it up.
    is_right = any(abs(value - truth.value) <= allowed * (1 + 1e-9) for value in values)
    said = f"reads {given.value:g} {given.unit}".rstrip()
    return ExplainedScore(float(is_right), said if values else f"{said}, which is no {truth.unit}")


def answered_quantity(completion: str) -> Quantity | None:
    """The quantity that a completion gives as its answer; None for none, or for several where one is marked."""
    marked = marked_text(completion)
    if marked is not None:
        return parse_quantity(marked)
    text = _plain(without_thought(completion)[-MAX_TEXT_CHARS:])
    last = None
    for match in _numbers(text):
        last = match
    return None if last is None else _quantity(last, _unit_after(text, last.end()))


def parse_quantity(text: str) -> Quantity | None:
    """The quantity that a whole text is: "v = 9.81 m/s^2", "about 5 kg"; None where it says more than one number, or
    goes on as a formula."""
    text = _plain(text)
    found = _numbers(text)
    if "=" in text or "≈" in text:
        # Of "5 + 7 = 12 m" the last part is what is said.
        start = max(text.rfind("="), text.rfind("≈"))
        found = [match for match in found if match.start() > start]
    if len(found) != 1 or _LEAD.fullmatch(text[: found[0].start()]) is None:
        return None
    name = _unit_after(text, found[0].end())
    unit = parse_unit(name) if name else None
    if _GOES_ON.match(text, found[0].end()) is not None and (unit is None or not unit.is_known):
        return None  # 5/s is a quantity, and 5/x is none
    return _quantity(found[0], name)


def _truth(item: RewardInput, unit_column: str | None) -> tuple[Quantity, Unit]:
    if item.ground_truth is None:
        raise ValueError("it needs a ground truth, and the row has none")
    truth = parse_quantity(item.ground_truth)
    if truth is None or not math.isfinite(truth.value):
        raise ValueError(f"the ground truth {item.ground_truth[:60]!r} is no number with a unit")
    if unit_column is not None and not truth.unit:
        truth = Quantity(value=truth.value, unit=str(column_value(item.row, unit_column) or ""))
    unit = parse_unit(truth.unit) or (Unit(dimensions={"thing": 1}) if _nouns(truth.unit) else None)
    if unit is None:
        raise ValueError(f"the unit {truth.unit[:40]!r} of the ground truth is not known")
    return truth, unit


def _in_unit(given: Quantity, name: str, unit: Unit, mode: str) -> list[float]:
    """What the given number may be in the truth's unit; nothing where it cannot be."""
    if mode == "ignored" or not name:
        return [given.value]
    if not given.unit:
        if mode == "required":
            return []
        # A share may be written as 0.2 for 20 %.
        return [given.value, given.value / unit.factor] if not unit.dimensions else [given.value]
    if unit.offset and given.unit in _DEGREES:
        given = Quantity(value=given.value, unit=_DEGREES[given.unit])
    if not unit.is_known:
        return [given.value] if _nouns(name) <= _nouns(given.unit) else []
    theirs = parse_unit(given.unit)
    if theirs is None or not theirs.is_known:  # "12 in all": words, and no unit
        return [] if mode == "required" else [given.value]
    return [unit.from_si(theirs.in_si(given.value))] if dict(theirs.dimensions) == dict(unit.dimensions) else []


def _nouns(text: str) -> set[str]:
    return {word.removesuffix("s") for word in re.findall(r"[^\W\d_]+", text.lower())}


def _plain(text: str) -> str:
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    # Those of a number, and not of its unit: 10⁵ is not 105.
    text = _RAISED.sub(r"^\1", text).translate(_SUPERSCRIPTS).strip()
    # One sign of dollars is money, two are the marks of a formula.
    if text.count("$") > 1:
        text = text.replace("$", "")
    return text.replace("`", "").strip()


def _numbers(text: str) -> list[re.Match[str]]:
    return list(_NUMBER.finditer(text))


def _quantity(match: re.Match[str], unit: str) -> Quantity:
    # Read as one number: float says inf where a power of ten on its own would raise.
    exponent = (match["exponent"] or match["power"] or "0").replace("−", "-")
    value = float(f"{re.sub(r'[,  ]', '', match['digits'])}e{exponent}")
    if match["raised"]:
        try:
            value **= int(match["raised"].replace("−", "-"))
        except (OverflowError, ZeroDivisionError):
            value = math.inf
    if match["below"]:
        below = float(match["below"])
        value = value / below if below else math.inf
    if match["whole"]:
        value += float(match["whole"])
    value *= _SCALES.get(match["scale"] or "", 1.0)
    if match["sign"] in ("-", "−"):
        value = -value
    return Quantity(value=value, unit=unit or match["currency"] or match["currency_inside"] or "")


def _unit_after(text: str, place: int) -> str:
    """The longest beginning of what follows a number that is a unit of measurement; else its words, as of "12 red
    apples", up to the end of the sentence."""
    following = re.split(r"[,;\n]|\.(?=\s|$)|\s\(", text[place : place + 80], maxsplit=1)[0].strip(" *_$·×⋅")
    words = following.split(" ")
    for length in range(len(words), 0, -1):
        if words[length - 1] == "in" and length < len(words):
            continue  # a word of the sentence, and no inch
        candidate = " ".join(words[:length])
        unit = parse_unit(candidate) if candidate else None
        if unit is not None and unit.is_known:
            return candidate
    return following if re.match(r"[^\W\d_]", following) else ""
