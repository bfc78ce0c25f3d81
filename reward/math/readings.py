r"""What an answer may mean: what stands behind its "=", before and behind its "\approx", without percent and modulus.

A reading is symmetric: the truth is read by the same rules as the answer. "1,234" is a number or a pair, so that a text
may have several.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from reward.math.inequalities import as_interval
from reward.math.normalization import normalize_answer, split_list
from reward.math.plain_numbers import PlainNumber, latex_of, plain_number
from reward.math.words import compared_as_words, is_worded, split_choice

MAX_CHARS = 1000
"""A longer answer is none."""
_MAX_VOTE_CHARS = 400

_APPROXIMATELY = re.compile(r"\\approx(?:eq)?|\\simeq|\\doteq|\\cong|~=")
_EQUALS = re.compile(r"(?<![<>!:=\\])=(?!=)|\\equiv(?![A-Za-z])")
_MODULUS = re.compile(
    r"\s*,?\s*(?:\\pmod\s*(?:\{(?P<braced>[^{}]+)\}|(?P<digit>\d+))"
    r"|\(\s*\\?b?mod\s*\{?\s*(?P<brackets>\w+)\s*\}?\s*\)|\\?b?mod\s*\{?\s*(?P<plain>\w+)\s*\}?)\s*$"
)
_MERIDIEM = re.compile(r"\s*\b(?P<half>[ap])\.?\s?m\b\.?\s*$", re.IGNORECASE)
_TIME = re.compile(r"\d{1,2}(?::\d{2}(?::\d{2})?)?")
_BASE = re.compile(r"(?P<digits>[0-9A-Fa-f]+(?:\.[0-9A-Fa-f]+)?)\s*_\s*\{?\s*(?P<base>\d{1,2}|[a-z]+)\s*\}?")
_BASE_NAMES = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9",
    "ten": "10", "eleven": "11", "twelve": "12", "sixteen": "16",
}  # fmt: skip
_GREEK = (
    "alpha|beta|gamma|delta|epsilon|theta|lambda|mu|phi|varphi|rho|sigma|tau|omega|psi|xi|eta|kappa|Delta|angle|ell"
)
_SYMBOL = rf"(?:[A-Za-z]|\\(?:{_GREEK}))(?:_\{{?\w+\}}?)?'{{0,2}}"
_NAME = re.compile(
    rf"\s*(?:{_SYMBOL}(?:\s*\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\))?"
    rf"|[A-Za-z]\^\{{-1\}}\s*\(\s*[A-Za-z]\s*\)"
    rf"|\(\s*{_SYMBOL}(?:\s*,\s*{_SYMBOL})+\s*\)"
    r"|\|?\\?[A-Za-z]{3,}(?:\s+[A-Za-z]+){0,6}|\\(?:angle|overline|triangle|widehat)?\s*\{?[A-Z]{1,4}\}?"
    r"|[A-Z]{2,4})\s*"
)
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z]*\{)")
_MEMBER = re.compile(rf"\s*(?P<name>{_SYMBOL})\s*\\in(?![A-Za-z])\s*(?P<set>.+)")
_SET_BUILDER = re.compile(
    rf"\\\{{\s*{_SYMBOL}\s*(?:\\in\s*(?:\\mathbb\s*\{{?R\}}?|R)\s*)?(?:\\mid|\\vert|:|\|)\s*(?P<condition>.+?)\\\}}"
)
_GROUPED = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_OR = re.compile(r"\bor\b|\\lor(?![A-Za-z])|\\vee(?![A-Za-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One meaning of an answer.

    Example:
        Reading(formula="5", name="x", equation="x=5")
    """

    formula: str
    """What it says, in normal form."""
    name: str | None = None
    """What it says it of: the x of "x = 5" and of "x > 3"; None where it does not say."""
    equation: str | None = None
    """All of it, where it is an equation."""
    assignments: tuple[tuple[str, str], ...] = ()
    """(name, value) of each where it is a list of them: "x = 1, y = 2"."""
    is_percent: bool = False
    modulus: str | None = None
    """The 100 of "44 (mod 100)"."""
    half_of_day: str | None = None
    """"a" or "p" of a time of day."""
    base: str | None = None
    """The 8 of 12_8."""
    is_loose: bool = False
    """Another reading of a comma, for a truth that is a plain number alone."""

    @property
    def number(self) -> PlainNumber | None:
        """The formula where it is a plain number."""
        return plain_number(self.formula)


@lru_cache(maxsize=512)
def readings_of(text: str) -> tuple[Reading, ...]:
    """What `text` may mean, the likeliest first; nothing for one that is empty or too long."""
    if len(text) > MAX_CHARS:
        return ()
    normal = normalize_answer(text)
    if not normal:
        return ()
    readings: list[Reading] = []
    for side in approximate_sides(normal):
        readings += _readings(side, is_alternative=_OR.search(text) is not None)
    choice = split_choice(text)
    if choice is not None and choice[1] and choice[0] <= "J":
        readings += _readings(normalize_answer(choice[1]), is_alternative=False)
    return tuple(dict.fromkeys(readings))


def approximate_sides(normal: str) -> list[str]:
    r"""What stands on the two sides of "\approx": one side where nothing stands before it, or a name alone."""
    sides = [side.strip(" =") for side in _APPROXIMATELY.split(normal)]
    named = len(sides) > 1 and _NAME.fullmatch(sides[0]) is not None and not re.search(r"\d", sides[0])
    return [side for side in (sides[1:] if named else sides) if side] or [normal]


def vote_of(answer: str) -> str:
    """What two answers have in common that a count takes for the same: "1/2", "0.5" and "x = 0.50"."""
    if len(answer) > _MAX_VOTE_CHARS:
        return answer
    choice = split_choice(answer)
    if choice is not None and not choice[1]:
        return choice[0]
    readings = readings_of(answer)
    if not readings or is_worded(readings[0].formula):
        return compared_as_words(answer) or answer.strip()
    first = readings[0]
    formula = first.formula if first.number is None else latex_of(first.number)
    return re.sub(r"\s+", "", formula) + (r"\%" if first.is_percent else "")


def _readings(normal: str, *, is_alternative: bool) -> list[Reading]:
    """The readings of one side of an approximation."""
    whole = _stripped(normal)
    modulus = _MODULUS.search(whole.formula)
    if modulus is not None and modulus.start() > 0:
        group = next(group for group in modulus.groups() if group is not None)
        whole = replace(whole, formula=whole.formula[: modulus.start()].strip(), modulus=group.strip())
    whole = _valued(whole)
    readings = [whole]
    formula = whole.formula
    if formula.endswith(r"\%"):
        elements = split_list(formula)
        if all(element.rstrip().endswith(r"\%") for element in elements):
            bare = ",".join(element.rstrip().removesuffix(r"\%").rstrip() for element in elements)
            readings = [replace(whole, formula=bare, is_percent=True)]
    based = _BASE.fullmatch(formula)
    if based is not None and (based["base"].isdigit() or based["base"] in _BASE_NAMES):
        base = _BASE_NAMES.get(based["base"], based["base"])
        return [replace(whole, formula=based["digits"].upper(), base=base, equation=None)]
    interval = as_interval(formula, is_alternative=is_alternative)
    if interval is not None:
        readings.append(replace(whole, formula=interval[1], name=interval[0] or None, equation=None))
    if formula.count(r"\pm") == 1 and r"\mp" not in formula:
        # The grammar reads the sign in front of a sum, not inside a fraction.
        both = (re.sub(r"^\+", "", re.sub(r"\\pm(?![A-Za-z])", sign, formula)) for sign in "+-")
        readings.append(replace(whole, formula=",".join(both), equation=None))
    if len(whole.assignments) > 1 and len({name for name, _ in whole.assignments}) == len(whole.assignments):
        # "x = 1, y = 2" for the pair (1, 2): in the order of the names.
        values = [value for _, value in sorted(whole.assignments)]
        readings.append(Reading(formula=f"({','.join(values)})"))
    inside = formula.strip("()[]{}\\ ")
    if _GROUPED.fullmatch(inside):
        readings.append(replace(whole, formula=inside.replace(",", ""), is_loose=True))
    elif _DECIMAL_COMMA.fullmatch(formula):
        readings.append(replace(whole, formula=formula.replace(",", "."), is_loose=True))  # of most of Europe
    return readings


def _stripped(normal: str) -> Reading:
    """Without the half of the day, and without the braces of a set that is told by its condition."""
    time = _MERIDIEM.search(normal)
    if time is not None and _TIME.fullmatch(normal[: time.start()].strip()):
        return Reading(formula=normal[: time.start()].strip(), half_of_day=time["half"].lower())
    builder = _SET_BUILDER.fullmatch(normal)
    return Reading(formula=builder["condition"].strip() if builder is not None else normal)


def _valued(reading: Reading) -> Reading:
    """The reading with what its equation, its list of equations or its "\\in" gives as its formula."""
    normal = reading.formula
    member = _MEMBER.fullmatch(normal)
    if member is not None:
        return replace(reading, formula=member["set"].strip(), name=member["name"])
    elements = split_list(normal)
    if len(elements) > 1:
        pairs = [_EQUALS.split(element) for element in elements]
        if all(len(pair) == 2 and _NAME.fullmatch(pair[0]) for pair in pairs):
            assignments = tuple((_compact(name), value.strip()) for name, value in pairs)
            return replace(reading, formula=",".join(value for _, value in assignments), assignments=assignments)
        # "x = 1, 2" names a list.
        first = _EQUALS.split(elements[0])
        if len(first) == 2 and _NAME.fullmatch(first[0]) and not any(_EQUALS.search(rest) for rest in elements[1:]):
            values = ",".join([first[1].strip(), *elements[1:]])
            return replace(reading, formula=values, name=_compact(first[0]))
        return reading
    sides = [side.strip() for side in _EQUALS.split(normal)]
    if len(sides) < 2:
        return reading
    if not sides[0]:
        return replace(reading, formula=sides[-1])
    if not any(_LETTER.search(side) for side in sides):
        return replace(reading, formula=sides[-1])  # a computation and its result
    equation = f"{sides[0]}={sides[-1]}"
    names_first = _is_name(sides[0])
    if not names_first and _is_name(sides[-1]) and len(sides) == 2:
        return replace(reading, formula=sides[0], name=_compact(sides[-1]), equation=equation)
    return replace(reading, formula=sides[-1], name=_compact(sides[0]) if names_first else None, equation=equation)


def _is_name(side: str) -> bool:
    return _NAME.fullmatch(side) is not None


def _compact(name: str) -> str:
    return re.sub(r"[\s{}]", "", name)
