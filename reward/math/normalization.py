r"""Bring an answer into the LaTeX that the comparison parses: fonts, separators, units, money, words around a number.

Pure text in, text out. Units are left out, not converted: "5 km" is the answer 5. Words that change a number are no
units: "twice 18" stays as it is, and is no number.
"""

import re

from reward.math.plain_numbers import SCALE_WORDS, latex_of, plain_number, scaled
from reward.math.unicode_folding import fold_unicode
from reward.math.words import FUNCTION_WORDS, SEPARATORS, is_neutral, is_unit

_WRAPPERS = (
    re.compile(r"\$\$(.*)\$\$", re.DOTALL),
    re.compile(r"\$([^$]*[^\\$])\$", re.DOTALL),
    re.compile(r"\\\((.*)\\\)", re.DOTALL),
    re.compile(r"\\\[(.*)\\\]", re.DOTALL),
    re.compile(r"\*\*(.*)\*\*", re.DOTALL),
    re.compile(r"`([^`]*)`"),
    re.compile(r'"([^"]*)"'),
)
_FONT = re.compile(r"\\(?:displaystyle|textstyle|boldsymbol|bf|rm|it|limits|bigl?|bigr?|Bigl?|Bigr?)\b\s*")
_MATH_FONT = re.compile(r"\\(?:mathbf|mathit|bm|mathsf|ensuremath)\s*\{([^{}]*)\}")
_LEFT_RIGHT = re.compile(r"\\(?:left|right)\s*(?=[\\()\[\]{}|.<>])")
_TEXT = r"\\(?:text|textbf|textit|textrm|textsf|textnormal|mathrm|mbox|operatorname)\s*\{([^{}]*)\}"
_WHOLE_TEXT = re.compile(_TEXT)
_TEXT_UNIT = re.compile(rf"{_TEXT}(?P<power>\s*\^\s*(?:\{{-?\d\}}|-?\d))?")
_SAME = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), r"\frac"),
    **dict.fromkeys(("dbinom", "tbinom"), r"\binom"),
    "varnothing": r"\emptyset",
    "leqslant": r"\leq",
    "geqslant": r"\geq",
}
_SAME_COMMAND = re.compile(rf"\\({'|'.join(_SAME)})(?![A-Za-z])")
_SHORT_ROOT = re.compile(r"\\sqrt\s*(\[[^\[\]]*\])\s*(\d|[A-Za-z])")
# 12_{\text{eight}}
_WORD_BELOW = re.compile(r"_\s*\{?\s*\\(?:text|mathrm)\s*\{\s*(\w+)\s*\}\s*\}?")
_LOG_BASE = re.compile(r"\\log_([A-Za-z])(?![A-Za-z])")
_ANGLE = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*\{?\s*\\(?:circ|degree)\s*\}?")
_OF_ANGLES = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_CURRENCY = re.compile(
    r"\\\$|[$€£¥₹₩₽₫฿]|\\(?:euro|pounds|yen)\b|(?<![A-Za-z])(?:US|USD|EUR|GBP|CNY|RMB|INR|Rs\.?)(?![A-Za-z])"
)
_PERCENT = re.compile(
    r"\s*(?:\\?%|\\(?:text|mathrm)\s*\{\s*(?:percent|\\?%)\s*\}|\b(?:percent|per cent|pct)\b)", re.IGNORECASE
)

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3})((?:(?:,|\{,\}|'| )\d{3})+)(?![\d])(?!,\d)")
_EUROPEAN = re.compile(r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+),(\d+)(?![\d.,])")
_SCIENTIFIC = re.compile(rf"(?<![\w.])({_NUMBER})\s*(?:[eE])\s*([-+]?\d{{1,3}})(?![\w.])")
_TIMES_TEN = re.compile(r"(?<=[\d.])\s*(?:[x*]|\\times|\\cdot)\s*10\s*\^\s*(?:\{?\s*([-+]?\d{1,4})\s*\}?)")
_MIXED = re.compile(r"(?<![\w.}/)])(\d+)(?:\s+|\s*\\?&\s*)(\d+)\s*/\s*(\d+)(?![\w.])")
_MIXED_LATEX = re.compile(r"(?<![\w.}/)^])(\d+)\s*\\[dtc]?frac\s*(?:\{(\d+)\}\s*\{(\d+)\}|(\d)(\d))")
_PLAIN_FRACTION = re.compile(rf"\(?(-?)({_NUMBER})\s*/\s*(-?{_NUMBER})\)?")
_SHORT_FRACTION = re.compile(r"\\frac\s*(?:(\d)\s*(\d)(?!\d)|(\d)\s*\{([^{}]*)\}|\{([^{}]*)\}\s*(\d))")
# A number among words: its exponent belongs to a unit ("cm^2"), and so does what follows a letter ("H2O").
_NUMBER_IN_WORDS = re.compile(
    rf"(?<![\w.^_{{])-?\s?(?:\(\d+\+\\frac\{{\d+\}}\{{\d+\}}\)|\\frac\{{\d+\}}\{{\d+\}}|{_NUMBER}(?:\s*/\s*{_NUMBER})?)"
    r"(?:\\times 10\^\{[-+]?\d+\})?(?:\\%)?"
)
_AROUND = re.compile(r"\^\{?-?\d\}?|[^\W\d_]+|\S")
_PUNCTUATION = frozenset(".,:;'\"()-/°!")
# One letter alone is a unit only after a space, and when it is one that people use: "5x" is a product.
_ONE_LETTER_UNITS = frozenset("mgsLlhWVANJKCFd")
_DEGREES = re.compile(rf"(-?{_NUMBER})\s*(?:\^\s*\{{?\s*\\(?:circ|degree)\s*\}}?|\\degree)\s*[CF]?")
_MAX_UNIT_CHARS = 40
_UNIT_MAY_BEGIN = re.compile(r"(?:(?<=[\d})])|\s)(?=[A-Za-z])")
_UNIT_ENDS = re.compile(r"[A-Za-z/ ]+(?:\^\{?-?\d\}?)?")
_OPERATOR_ENDS = re.compile(r"(?:[-+*/=^_<>,(]|\\(?:times|cdot|div|pm|le|leq|ge|geq|in|sin|cos|tan|ln|log))\s*$")
_LIST_WORD = re.compile(r"\s*,?\s+(?:and|or)\s+(?=[-+\d\\(\[{$]|[A-Za-z](?:_\{?\w\}?)?\s*[=<>+\-*/^\\])")
_UNIT_WORD = r"(?!and\b|or\b)([A-Za-z]{2,})"
_TWO_QUANTITIES = re.compile(
    rf"\d\s*{_UNIT_WORD}\s*(?:,?\s*(?:and\s+|or\s+)?(?=\d[\d.]*\s*{_UNIT_WORD})|(?:and\s+)?(?=\d[\d.]*\s*$))"
)
_NUMBER_ENDS, _NUMBER_BEGINS = re.compile(r"[\d})]\s*$"), re.compile(r"\s*(?:\d|\\frac)")
_ROOT_IN_WORDS = re.compile(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
_FUNCTION_IN_WORDS = re.compile(r"(?<![\\A-Za-z])(sin|cos|tan|ln|log|pi)(?![A-Za-z])")


def normalize_answer(text: str) -> str:
    """The answer in `text` as LaTeX: ASCII digits and signs, no fonts, money signs, thousands separators or units.

    Example: "**$1,234.50**" -> "1234.50", "12 apples" -> "12", "3 1/2" -> "(3+\\frac{1}{2})", "１２" -> "12".
    """
    text = _strip_wrappers(fold_unicode(text))
    text = _FONT.sub("", text)
    text = _MATH_FONT.sub(r"\1", text)
    text = _LEFT_RIGHT.sub("", text)
    text = _SAME_COMMAND.sub(lambda found: _SAME[found.group(1)], text)
    text = _SHORT_ROOT.sub(r"\\sqrt\1{\2}", text)
    text = _WORD_BELOW.sub(r"_{\1}", text)
    text = _LOG_BASE.sub(r"\\log_{\1}", text)
    text = _SHORT_FRACTION.sub(_braced, text)
    text = _PERCENT.sub(r"\\%", text)
    text = _without_text_commands(text)
    text = _CURRENCY.sub("", text)
    text = _FUNCTION_IN_WORDS.sub(r"\\\1", _ROOT_IN_WORDS.sub(r"\\sqrt{\1}", text))
    if _OF_ANGLES.search(text):
        text = _ANGLE.sub(r"(\\frac{\1\\pi}{180})", text)
    text = _plain_numbers(text)
    if any(first.lower() != second.lower() for first, second in _TWO_QUANTITIES.findall(text)):
        return " ".join(text.split())  # "3 hours and 20 minutes", "2 apples, 3 pears": no list of two numbers
    if re.search(r"[\d\\]", text):
        text = _LIST_WORD.sub(",", text)
    return _strip_ends(",".join(_element(element) for element in split_list(text)))


def split_list(text: str) -> list[str]:
    """The elements of a list without brackets: split at the commas that stand in no bracket."""
    elements, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "," and depth <= 0:
            elements.append(text[start:index])
            start = index + 1
    return [*elements, text[start:]]


def _braced(match: re.Match[str]) -> str:
    first = match[1] or match[3] or match[5]
    second = match[2] or match[4] or match[6]
    return rf"\frac{{{first}}}{{{second}}}"


def _element(text: str) -> str:
    """One element of a list: without its unit, in the form of its kind of number."""
    text = _latex_fraction(_strip_ends(text))
    degrees = _DEGREES.fullmatch(text)
    if degrees is not None:
        return degrees[1]
    if plain_number(text) is not None or not re.search(r"[^\W\d_]", text):
        return text
    number = _number_in_words(text)
    if number is not None:
        return number
    return _without_unit(text)


def _latex_fraction(text: str) -> str:
    """A fraction of numbers with a slash as one of LaTeX; any other text as it is."""
    fraction = _PLAIN_FRACTION.fullmatch(text)
    return text if fraction is None else rf"{fraction[1]}\frac{{{fraction[2]}}}{{{fraction[3]}}}"


def _without_unit(text: str) -> str:
    """A formula without the unit behind it: "4\\pi cm"."""
    for match in _UNIT_MAY_BEGIN.finditer(text, max(0, len(text) - _MAX_UNIT_CHARS)):
        formula, unit = text[: match.start()], text[match.end() :]
        if _UNIT_ENDS.fullmatch(unit) is None or not re.search(r"[\d\\]", formula) or _OPERATOR_ENDS.search(formula):
            continue
        is_letter = re.match(r"[A-Za-z](?![A-Za-z])", unit) is not None
        if is_unit(unit) and not (is_letter and (not match.group() or unit[0] not in _ONE_LETTER_UNITS)):
            return _strip_ends(formula)
    return text


def _number_in_words(text: str) -> str | None:
    """The only number of `text` in normal form, where the words around it leave it as it is; None where not."""
    matches = list(_NUMBER_IN_WORDS.finditer(text))
    if len(matches) != 1:
        return None
    (match,) = matches
    before, behind = text[: match.start()], text[match.end() :]
    if not before.strip() and not behind.strip():
        return None
    sign = re.search(r"\b(?:negative|minus)\s*$", before, re.IGNORECASE)
    if sign is not None:
        before = before[: sign.start()]
    if not _is_wording(before, is_before=True) or not _is_wording(behind, is_before=False):
        return None
    scale = re.match(rf"\s*((?:(?:{'|'.join(SCALE_WORDS)})\b\s*)+)", behind, re.IGNORECASE)
    if scale is not None:
        behind = behind[scale.end() :]
    if not is_neutral(before, behind):
        return None
    percent = r"\%" if match.group().endswith(r"\%") else ""
    latex = _latex_fraction(match.group().removesuffix(r"\%").replace(" ", ""))
    number = plain_number(latex)
    if number is None:
        return None
    if scale is not None:
        latex = latex_of(scaled(number, scale[1].lower().split()))
    return f"{'-' if sign is not None else ''}{latex}{percent}"


def _is_wording(text: str, *, is_before: bool) -> bool:
    """Whether `text`, which stands beside a number, is nothing but words, units and punctuation."""
    for match in _AROUND.finditer(text):
        token, start = match.group(), match.start()
        if not token[0].isalpha():
            if token[0] == "^" and start > 0 and text[start - 1].isalpha() and not is_before:
                continue
            if token not in _PUNCTUATION or (token in "!/" and (is_before or start == 0)):
                return False
        elif token.lower() in FUNCTION_WORDS and not is_unit(token):
            return False
        elif is_before:
            if len(token) == 1 and token not in "aAI" and token.isascii():
                return False
        elif len(token) == 1 and token.isascii():
            stands_alone = start > 0 and text[start - 1] in " /-"
            if not stands_alone or (token not in _ONE_LETTER_UNITS and token != "a"):
                return False
        elif (
            start == 0 and len(token) < 4 and token.isascii() and not is_unit(token) and token.lower() not in _ORDINALS
        ):
            return False  # "5xy" is a product, "5km" and "5th" are not
    return True


_ORDINALS = ("st", "nd", "rd", "th", "am", "pm", "hrs", "min")


def _without_text_commands(text: str) -> str:
    r"""Units and descriptions in \text{} left out; what changes a value, or is all there is, as plain words."""
    whole = _WHOLE_TEXT.fullmatch(text.strip())
    if whole is not None:
        return whole.group(1)
    rest = _TEXT_UNIT.sub("", text)
    is_formula = re.search(r"\d|\\(?!text)[A-Za-z]", rest) is not None

    def replaced(match: re.Match[str]) -> str:
        words = match.group(1).strip(" ,.:;~")
        if words.lower() in SEPARATORS:
            return f" {words.lower() if words in ('and', 'or') else 'and'} "
        behind = text[match.end() :].strip(" .")
        if _NUMBER_ENDS.search(text[: match.start()]) and _NUMBER_BEGINS.match(behind):
            return f" {match.group(1)} "  # "10 hours and 30 minutes" is no product
        if is_unit(words) and not behind.startswith("="):
            return " "
        is_time = words.lower().replace(".", "") in ("am", "pm")
        if is_formula and not is_time and is_neutral(words, words):
            return " "
        return f" {match.group(1)} "

    return _TEXT_UNIT.sub(replaced, text)


def _strip_wrappers(text: str) -> str:
    for _ in range(4):
        stripped = text.strip().strip("*_ ")
        for wrapper in _WRAPPERS:
            whole = wrapper.fullmatch(stripped)
            # "$5 and $6$"... only a pair that encloses everything: no second pair inside.
            if whole is not None and "\\)" not in whole.group(1) and "\\]" not in whole.group(1):
                stripped = whole.group(1)
        stripped = _strip_ends(stripped)
        if stripped == text:
            break
        text = stripped
    return text


def _strip_ends(text: str) -> str:
    """Without white space and sentence punctuation at the ends; "5!" keeps its factorial."""
    text = text.strip()
    while text and (text[-1] in ".,;:?" or (text[-1] == "!" and text[-2:-1].isalpha())):
        if text.endswith("\\,") or text.endswith("\\;"):
            text = text[:-1]
        text = text[:-1].rstrip()
    return text.lstrip(",;: ")


def _plain_numbers(text: str) -> str:
    text = _EUROPEAN.sub(lambda found: found.group(1).replace(".", "") + "." + found.group(2), text)
    # Inside brackets a comma separates the elements of a tuple, interval or set: (1,234) has two.
    if not text.strip().startswith(("(", "[", "{", "\\{", "\\(")):
        text = _THOUSANDS.sub(lambda found: found.group(1) + re.sub(r"\D", "", found.group(2)), text)
    text = text.replace("{,}", ",")
    text = _SCIENTIFIC.sub(r"\1\\times 10^{\2}", text)
    text = _TIMES_TEN.sub(r"\\times 10^{\1}", text)
    text = _MIXED.sub(r"(\1+\\frac{\2}{\3})", text)
    text = _MIXED_LATEX.sub(
        lambda found: rf"({found[1]}+\frac{{{found[2] or found[4]}}}{{{found[3] or found[5]}}})", text
    )
    return re.sub(r"(?<![\w}])\+(?=[\d.\\])", "", text, count=1) if text.lstrip().startswith("+") else text
