"""Scores steps by the sums in them: a step is right when every equation in it that can be computed is."""

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from reward.functions import register_steps
from reward.types import RewardInput

MAX_DIGITS = 30
"""Of a number: longer ones are no sum that a person writes, and cost time."""
_TOKEN = re.compile(
    r"""[ ]?(?:
        (?P<number>\d+(?:,\d{3})*(?:\.\d+)?)
      | (?P<sign>[-+*/()=] | [xX](?=[ ]?[\d(]))
    )""",
    re.VERBOSE,
)
_BULLET = re.compile(r"[ ]?(?:(?P<mark>[-*+\u2022]|\#{1,6}|\d{1,3}[.)])[ ])?")
"""What marks an item of a list: no sign, and no number."""
_MARKUP = re.compile(r"\*\*|\\[()\[\],;: $]|\$|\\(?:left|right|quad)(?![A-Za-z])")
"""What a page does not show, or shows as nothing that is computed."""
_BOX = re.compile(r"\\(?:boxed|text|mathrm)[ ]?\{([^{}\\]*)\}")
_DASH = re.compile(r"(?<!\d)\u2013|\u2013(?!\d)")
"""The en dash is a minus, but for one between two digits: "10\u201320" is a range."""
_SIGNS = {
    **dict.fromkeys(["\u2217", "\u00d7", "\u00b7", "\u22c5", r"\times", r"\cdot", r"\ast"], "*"),
    **dict.fromkeys(["\u00f7", r"\div"], "/"),
    **dict.fromkeys(["\u2212", "\u2012"], "-"),
}
_SIGN = re.compile("|".join(re.escape(sign) + ("(?![A-Za-z])" if sign[0] == "\\" else "") for sign in _SIGNS))
_LEADS_IN = frozenset(
    [
        "so",
        "then",
        "thus",
        "hence",
        "therefore",
        "now",
        "next",
        "first",
        "finally",
        "since",
        "because",
        "that",
        "that's",
        "it's",
        "is",
        "are",
        "was",
        "were",
        "equals",
        "get",
        "gets",
        "got",
        "give",
        "gives",
        "have",
        "has",
        "had",
        "make",
        "makes",
        "made",
        "total",
        "totals",
        "altogether",
        "calculate",
        "compute",
        "cost",
        "costs",
        "spend",
        "spends",
        "spent",
        "pay",
        "pays",
        "paid",
        "earn",
        "earns",
        "earned",
        "need",
        "needs",
    ]
)
"""Words that a formula may follow. "of", "twice", "mod" and many others make what follows a part of a formula, so that
a word that is not known is taken for one of them."""
MAX_WORD = 24
"""Characters that are looked back for a word that leads in; each of these is shorter."""
_LAST_WORD = re.compile(r"[\w'\\]+$")
_OPENS = '.,;:?!<>(["\u2022\u2192\u21d2&'
"""Signs that a formula may follow, as far as `_begins` does not say more of them."""
_CLOSES = ".,;:?)]\"'<>\u2248\u2264\u2265\u2260\u2192\u21d2\u2014&|\u20ac\u00a3"
"""Signs that may follow a formula."""
_CHANGES = re.compile(
    r""",?[ ]?(?:
        (?:[a-z]|am|pm|o'clock|of|mod|modulo|choose|squared|cubed|factorial|percent|percentage|pct|pairs?|dozens?|hundreds?
          |thousands?|millions?|billions?|trillions?|times|plus|minus|less|over|divided|multiplied|and\ (?:an?|one|half)
          |(?:more|fewer|greater)\ than|(?:with\ )?(?:an?\ )?(?:remainders?|rem)|r\d+|(?:when\ )?round\w*|full|whole
          |complete|in\ (?:base|binary|hex\w*|octal))(?![a-z])
      | and\ \d+[ ]?/[ ]?\d+(?![ ]?[-+*/=\d])
    )""",
    re.VERBOSE | re.IGNORECASE,
)
"""Words behind a number that make another of it ("3 dozen", "3 remainder 1"), and letters that may be a variable."""
_Tokens = list[tuple[str, str]]
"""(kind, text): `number`, or `sign`."""


@register_steps("arithmetic_steps")
def arithmetic_steps(item: RewardInput, right: float = 1.0, wrong: float = -1.0, without: float = 0.0) -> list[float]:
    """`right` for a step whose equations all hold, `wrong` where one does not, `without` where there is none."""
    rewards = []
    for step in item.steps:
        found = list(equations(step))
        rewards.append(without if not found else right if all(found) else wrong)
    return rewards


def equations(text: str) -> Iterator[bool]:
    """Whether each equation of a text holds: numbers with + - * / and parentheses on the left of a `=`, or of several.
    A decimal on the right may be rounded to its digits. What may be part of a longer formula is no equation that can be
    computed, as are formulas with letters, powers, percentages and divisions by zero: a side is read only where what
    stands before and behind it is known to leave its value alone."""
    is_open = False
    for line in text.splitlines():
        plain = _plain(line)
        bullet = _BULLET.match(plain)
        assert bullet is not None, "it matches any text"
        found = list(_of_line(plain, bullet.end(), is_open=is_open))
        # "- 2 + 3 = 1" is right if its dash is a minus: nobody knows which it is.
        if bullet["mark"] != "-" or all(found) or not all(_of_line(plain, 0, is_open=is_open)):
            yield from found
        if plain.strip():
            is_open = plain.rstrip()[-1] in "+-*/^(\\"


def _plain(line: str) -> str:
    """A line with one character for each sign and one blank between words, and without markup."""
    line = _BOX.sub(r" \1 ", _MARKUP.sub(" ", line))
    line = _SIGN.sub(lambda match: _SIGNS[match[0]], _DASH.sub("-", line))
    return re.sub(r"\s+", " ", line)


def _of_line(text: str, place: int, *, is_open: bool) -> Iterator[bool]:
    """`is_open`: a formula of the line before may go on in this one."""
    first, last_end = place, None
    while place < len(text):
        tokens, end = _run(text, place)
        if tokens:
            is_second = last_end is not None and text[last_end:place].strip() == "and"
            is_first = place == first and tokens[0][1] not in "+*/)" and not is_open
            begins = is_first or (is_second and tokens[0][0] == "number") or _begins(text, first, place, tokens)
            yield from _holds(_sides(tokens, is_whole=(begins, _ends(text, end))))
            last_end = end if ("sign", "=") in tokens else None
        place = max(end, place + 1)


def _run(text: str, start: int) -> tuple[_Tokens, int]:
    """The tokens that follow one another from `start`, and where they end."""
    tokens: _Tokens = []
    end = start
    while match := _TOKEN.match(text, end):
        if match["number"]:
            tokens.append(("number", match["number"]))
        else:
            tokens.append(("sign", "*" if match["sign"] in "xX" else match["sign"]))
        end = match.end()
    return tokens, end


def _begins(text: str, first: int, start: int, tokens: _Tokens) -> bool:
    """Whether a formula begins at `start`, and is not the rest of one: something stands before it, and is known."""
    before = text[max(first, start - MAX_WORD) : start].rstrip(" ")
    if not before or tokens[0][1] in "+*/)":
        return False
    is_apart = text[start] == " " or text[start - 1] == " "
    if word := _LAST_WORD.search(before):
        # "x - 2 = 3" has a sign behind a word.
        return is_apart and tokens[0][1] != "-" and word[0].lower() in _LEADS_IN
    mark, previous = before[-1], before[-2:-1]
    if mark == "!":
        return previous.isalpha()  # "3!" is a factorial
    if mark in ".,":
        return is_apart and previous != "."  # "3,5" and ".5" are one number, "..." leaves some out
    if mark == ":":
        return is_apart and previous != " "  # "10 : 2" is a quotient, and "10:2" too
    return mark in _OPENS


def _ends(text: str, end: int) -> bool:
    """Whether a formula ends at `end`, and nothing behind it changes its value."""
    behind = text[end : end + MAX_WORD].lstrip(" ")
    if not behind or _CHANGES.match(behind):
        return not behind
    if behind[0].isalnum():
        return text[end] == " "
    # "4,5" and "1:30" are one number, and so are "0.66..." and that which LaTeX writes with a line over its digits.
    is_number = behind[0] in ".,:" and (behind[1:2].isdigit() or (behind[1:2] and behind[1] in ".\\"))
    return behind[0] in _CLOSES and not is_number


def _sides(tokens: _Tokens, *, is_whole: tuple[bool, bool]) -> list[_Tokens]:
    """What stands between the signs of equality; a first or last side that is no whole formula is empty."""
    sides: list[_Tokens] = [[]]
    for token in tokens:
        if token == ("sign", "="):
            sides.append([])
        else:
            sides[-1].append(token)
    if not is_whole[0]:
        sides[0] = []
    if not is_whole[1]:
        sides[-1] = []
    return sides


def _holds(sides: list[_Tokens]) -> Iterator[bool]:
    for left, right in pairwise(sides):
        # "of 50 = 10" compares nothing that was computed.
        values = _value(left), _value(right)
        if len(left) + len(right) > 2 and values[0] is not None and values[1] is not None:
            yield values[0] == values[1] or _is_rounded(values[0], right)


def _is_rounded(value: Fraction, written: _Tokens) -> bool:
    """Whether one decimal number is `value`, rounded to the digits that it has."""
    if len(written) != 1 or "." not in written[0][1]:
        return False
    digits = written[0][1].replace(",", "")
    unit = Fraction(1, 10 ** len(digits.partition(".")[2]))
    return abs(value - Fraction(digits)) <= unit / 2


def _value(tokens: _Tokens) -> Fraction | None:
    """Of an expression; None for what is none, or has no value."""
    rest = list(reversed(tokens))
    try:
        value = _sum(rest)
    except (IndexError, ValueError, ZeroDivisionError, RecursionError):
        return None
    return None if rest else value


def _sum(rest: _Tokens) -> Fraction:
    value = _product(rest)
    while rest and rest[-1][1] in "+-":
        sign = rest.pop()[1]
        term = _product(rest)
        value = value + term if sign == "+" else value - term
    return value


def _product(rest: _Tokens) -> Fraction:
    value = _factor(rest)
    while rest and rest[-1][1] in "*/":
        sign = rest.pop()[1]
        factor = _factor(rest)
        value = value * factor if sign == "*" else value / factor
    return value


def _factor(rest: _Tokens) -> Fraction:
    kind, text = rest.pop()
    if kind == "number":
        if len(text) > MAX_DIGITS:
            raise ValueError(text)
        return Fraction(text.replace(",", ""))
    if text == "-":
        return -_factor(rest)
    if text != "(":
        raise ValueError(text)
    value = _sum(rest)
    if rest.pop()[1] != ")":
        raise ValueError("an open parenthesis")
    return value
