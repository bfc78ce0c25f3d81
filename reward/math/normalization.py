"""Bring an extracted answer into the LaTeX that the comparison parses: fonts, separators, units, money.

Pure text in, text out. Units are left out, not converted: "5 km" is the answer 5.
"""

import re

from reward.math.unicode_folding import fold_unicode

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
_TEXT = r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mbox|operatorname)\s*\{([^{}]*)\}"
_WHOLE_TEXT = re.compile(_TEXT)
_TEXT_UNIT = re.compile(rf"(?:{_TEXT})(?:\s*\^\s*(?:\{{-?\d\}}|-?\d))?")
_CURRENCY = re.compile(
    r"\\\$|[$€£¥₹₩₽₫฿]|\\(?:euro|pounds|yen)\b|(?<![A-Za-z])(?:US|USD|EUR|GBP|CNY|RMB|INR|Rs\.?)(?![A-Za-z])"
)
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*(?:percent|\\?%)\s*\}|\b(?:percent|per cent|pct)\b)", re.IGNORECASE)

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)"
_THOUSANDS = re.compile(r"(?<![\d.,])(\d{1,3})((?:(?:,|\{,\}|'| )\d{3})+)(?![\d])(?!,\d)")
_EUROPEAN = re.compile(r"(?<![\d.,])(\d{1,3}(?:\.\d{3})+),(\d+)(?![\d.,])")
_SCIENTIFIC = re.compile(rf"(?<![\w.])({_NUMBER})\s*(?:[eE])\s*([-+]?\d{{1,3}})(?![\w.])")
_MIXED = re.compile(r"(?<![\w.}/)])(\d+)(?:\s+|\s*\\?&\s*)(\d+)\s*/\s*(\d+)(?![\w.])")
_MIXED_LATEX = re.compile(r"(?<![\w.}/)^])(\d+)\s*\\[dtc]?frac\s*(?:\{(\d+)\}\s*\{(\d+)\}|(\d)(\d))")
_PLAIN_FRACTION = re.compile(rf"\(?(-?{_NUMBER})\s*/\s*(-?{_NUMBER})\)?")
# A number, then words: "12 apples", "5 km/h", "30 m^2", "42 个苹果". One letter alone is a unit only after a space and
# when it is one that people use, since "5x" is a product.
_ONE_LETTER_UNITS = "mgsLlhWVANJKCFd"
_NUMBER_WITH_WORDS = re.compile(
    rf"([-+]?(?:{_NUMBER}|\\frac\{{\d+\}}\{{\d+\}}|{_NUMBER}\s*/\s*{_NUMBER}|\(\d+\+\\frac\{{\d+\}}\{{\d+\}}\))(?:\\%)?)"
    rf"(?:\s*-?\s*(?:[^\W\d_]{{2,}}|\s[{_ONE_LETTER_UNITS}](?![A-Za-z]))[^\d=+*<>,()\[\]{{}}\\]*(?:\^\{{?-?\d\}}?)?"
    r"|\s*\^\{?\\circ\}?\s*[CF]?)\.?"
)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


def normalize_answer(text: str) -> str:
    """The answer in `text` as LaTeX: ASCII digits and signs, no fonts, money signs, thousands separators or units.

    Example: "**$1,234.50**" -> "1234.50", "12 apples" -> "12", "3 1/2" -> "(3+\\frac{1}{2})", "１２" -> "12".
    """
    text = fold_unicode(text)
    text = _strip_wrappers(text)
    text = _FONT.sub("", text)
    text = _MATH_FONT.sub(r"\1", text)
    text = _LEFT_RIGHT.sub("", text)
    text = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text)
    text = _PERCENT.sub(r"\\%", text)
    whole = _WHOLE_TEXT.fullmatch(text.strip())
    if whole is not None:
        text = whole.group(1)
    elif re.search(r"\d", _TEXT_UNIT.sub("", text)):
        # "and" and "or" separate the elements of a list; any other words beside a number are its unit.
        text = _TEXT_UNIT.sub(lambda found: "," if found.group(1).strip(" ,") in ("and", "or") else " ", text)
    text = _CURRENCY.sub("", text)
    text = _plain_numbers(text)
    text = _strip_ends(text)
    if _CJK.search(text):
        without = _CJK.sub(" ", text).strip(" ,.:")
        # Only where one number remains: "3个苹果和4个梨" is two answers, not 34.
        if len(re.findall(_NUMBER, without)) == 1:
            text = without
    with_words = _NUMBER_WITH_WORDS.fullmatch(text)
    if with_words is not None:
        text = _plain_numbers(with_words.group(1))
    return _strip_ends(text)


def comparable_words(text: str) -> str:
    """Words for a comparison as text: without LaTeX, case, punctuation at the ends and repeated spaces."""
    text = _strip_wrappers(fold_unicode(text))
    text = re.sub(_TEXT, r"\1", text)
    text = " ".join(text.split()).casefold().strip(" .,:;!?\"'")
    choice = re.fullmatch(r"\(?([a-z])\)?[.):]?", text)
    return choice.group(1) if choice is not None else text


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
    while text and (text[-1] in ".,;:?" or (text[-1] == "!" and not text[-2:-1].isdigit())):
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
    text = _MIXED.sub(r"(\1+\\frac{\2}{\3})", text)
    text = _MIXED_LATEX.sub(
        lambda found: rf"({found[1]}+\frac{{{found[2] or found[4]}}}{{{found[3] or found[5]}}})", text
    )
    fraction = _PLAIN_FRACTION.fullmatch(text.strip())
    if fraction is not None:
        text = rf"\frac{{{fraction.group(1)}}}{{{fraction.group(2)}}}"
    return re.sub(r"(?<![\w}])\+(?=[\d.\\])", "", text, count=1) if text.startswith("+") else text
