r"""Words in an answer: which leave its value as it is, which change it, and when two worded answers are the same."""

import re

from reward.math.plain_numbers import SCALE_WORDS
from reward.math.unicode_folding import fold_unicode

SEPARATORS = frozenset({"and", "or", "und", "et", "y", "или", "и", "和", "或"})
"""What stands between the elements of a list."""
NEGATIONS = frozenset(
    re.findall(
        r"\S+",
        """
        not never isn't isnt aren't wasn't cannot can't don't doesn't neither nor
        """,
    )
)
CHANGING = (
    NEGATIONS
    | SCALE_WORDS
    | frozenset(
        [
            "without",
            "except",
            "excluding",
            "unless",
            "instead",
            "rather",
            "or",
            "either",
            "between",
            "than",
            "under",
            "over",
            "above",
            "below",
            "beyond",
            "exceeds",
            "exceeding",
            "within",
            "twice",
            "thrice",
            "double",
            "triple",
            "quadruple",
            "half",
            "halves",
            "minus",
            "negative",
            "root",
            "log",
            "ln",
            "log10",
            "factorial",
            "modulo",
            "mod",
            "divided",
            "multiplied",
            "no",
        ]
    )
)
"""Before a number, one of these makes it another, or none: "twice 18", "not 18", "less than 18"."""
_CHANGING_BEHIND = (
    NEGATIONS
    | SCALE_WORDS
    | frozenset(
        [
            "or",
            "either",
            "without",
            "except",
            "unless",
            "instead",
            "rather",
            "half",
            "halves",
            "doubled",
            "tripled",
            "thirds",
            "fourths",
            "fifths",
            "sixths",
            "eighths",
            "tenths",
            "hundredths",
            "thousandths",
            "hundreds",
            "thousands",
            "millions",
            "billions",
            "trillions",
            "factorial",
            "mod",
            "modulo",
            "minus",
            "plus",
            "divided",
            "multiplied",
        ]
    )
)
"""Behind a number."""
# "square of 18", "a third of 18", "the absolute value of 18", "at least 18".
_CHANGING_PHRASE = re.compile(
    r"\b(?:square|cube|reciprocal|inverse|opposite|absolute value|power|sine|cosine|tangent|third|quarter|fourth|fifth|"
    r"tenth|multiple|percent|percentage)\s+of\b|\bat\s+(?:least|most)\b|\bup\s+to\b",
    re.IGNORECASE,
)
# "5 squared" is 25; "5 meters squared" is an area.
_POWER_WORD = re.compile(r"\s*(?:squared|cubed)\b", re.IGNORECASE)
FUNCTION_WORDS = frozenset(
    [
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "log",
        "ln",
        "exp",
        "sqrt",
        "frac",
        "pi",
        "max",
        "min",
        "gcd",
        "lcm",
        "mod",
        "inf",
        "infty",
        "infinity",
        "cup",
        "cap",
        "pmatrix",
        "bmatrix",
        "vmatrix",
        "matrix",
        "smallmatrix",
        "array",
        "cases",
        "begin",
        "end",
    ]
)
_UNIT_WORDS = frozenset(
    re.findall(
        r"\S+",
        """
        m cm mm km dm nm in ft yd mi inch inches foot feet yard yards mile miles meter meters metre metres
        centimeter centimeters centimetre centimetres millimeter millimeters kilometer kilometers kilometre kilometres
        s sec secs second seconds min mins minute minutes h hr hrs hour hours day days week weeks month months year
        years g kg mg lb lbs oz gram grams kilogram kilograms pound pounds ounce ounces ton tons l ml liter liters
        litre litres gallon gallons quart quarts pint pints cup cups mph kph kmh rpm n j w v a k c f hz pa mol
        newton newtons joule joules watt watts volt volts amp amps ohm ohms unit units sq square cubic cu degree
        degrees deg radian radians rad dollar dollars cent cents usd euro euros rupee rupees point points per
        """,
    )
)
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textsf|textnormal|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_WORD = re.compile(r"(?<![\\A-Za-z])[^\W\d_]+(?:'[a-z]+)?")
_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s+)?[(\[]?([A-Za-z])(?:[)\]]|(?=[.:]|$))[.:]?\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_BRACKETED_CHOICE = re.compile(r"\s*[(\[]\s*([A-Z])\s*[)\]]\s*(?P<rest>\S.*)", re.DOTALL)


def words_in(text: str) -> list[str]:
    """All words in `text` in lower case, commands of LaTeX and single letters left out."""
    return [word.lower() for word in _WORD.findall(text) if len(word) > 1]


def is_neutral(before: str, behind: str) -> bool:
    """Whether the words before and behind a number leave its value as it is."""
    return (
        CHANGING.isdisjoint(words_in(before))
        and _CHANGING_BEHIND.isdisjoint(words_in(behind))
        and _CHANGING_PHRASE.search(before) is None
        and _POWER_WORD.match(behind) is None
    )


def is_unit(text: str) -> bool:
    """Whether `text` is nothing but units: "cm", "miles per hour", "square feet"."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    return bool(words) and _UNIT_WORDS.issuperset(words)


def is_worded(text: str) -> bool:
    """Whether an answer in normal form says something in words, that no formula may stand for.

    Three letters or more that are no function, or two capitals: "cat", "HHT", "x is even". `ab` and `xy` are products.
    """
    text = re.sub(r"\\[A-Za-z]+", " ", text)
    return any(
        (len(word) > 2 and word.lower() not in FUNCTION_WORDS) or re.fullmatch(r"[A-Z]{2,}", word) is not None
        for word in re.findall(r"[^\W\d_]+", text)
    )


def comparable_words(text: str) -> str:
    """Words for a comparison as text: without LaTeX, case, punctuation at the ends and repeated spaces."""
    text = strip_text_commands(fold_unicode(text)).replace("$", "")
    text = re.sub(r"\\[,;:! ]|~", " ", text)
    text = " ".join(text.split()).casefold().lstrip("\"'*_` ").rstrip(" .,:;?\"'*_`")
    text = re.sub(r"(?<=[^\W\d_]{2})!+$", "", text)
    choice = re.fullmatch(r"\(?([a-z])\)?[.):]?", text)
    return choice.group(1) if choice is not None else text


def compared_as_words(text: str) -> str:
    """`comparable_words` with what a writer may leave out: the spaces around a comma, "the" and "a" in front."""
    text = re.sub(r"\s*([,;])\s*", r"\1", comparable_words(text))
    return re.sub(r"^(?:the|a|an)\s+", "", text)


def strip_text_commands(text: str) -> str:
    r"""`text` with what stands in \text{} and its kind as plain text."""
    for _ in range(4):
        text, count = _TEXT.subn(r" \1 ", text)
        if not count:
            break
    return text


def split_choice(text: str) -> tuple[str, str] | None:
    r"""(letter, the rest) of a multiple-choice answer: "B", "(B)", "option B", "B. 12", "\textbf{(B)}\ 12"."""
    plain = strip_text_commands(fold_unicode(text)).strip(" $*_`.,")
    bracketed = _BRACKETED_CHOICE.fullmatch(plain)
    match = bracketed or _CHOICE.fullmatch(plain)
    if match is None:
        return None
    return match.group(1).upper(), match["rest"].strip(" .:$")
