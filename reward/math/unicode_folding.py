"""Digits, signs and spaces of any script as ASCII or LaTeX. Pure text in, text out."""

import re
import unicodedata

_MINUS_SIGNS = dict.fromkeys(map(ord, "−－﹣⁻"), "-")
# These are dashes too, but between numbers they make a range, so they are a minus only in front of a number.
_DASH_MINUS = re.compile(r"(?<![\w)\]}.])\s*[‐‑‒–—]\s*(?=[\d.\\])")
_BLANKS = r"\u00a0\u2000-\u200a\u202f\u205f\u3000\t\r"
_TEX_SPACES = r"|(?<!\\)\\[,;:> ]|~|\\q?quad\b|\\(?:thin|med|thick)?space\b"
_SPACES = re.compile(rf"[{_BLANKS}\n]+{_TEX_SPACES}")
_SPACES_IN_LINES = re.compile(rf"[{_BLANKS}]+{_TEX_SPACES}")
# TeX's space that moves back: MATH writes 15,\!000, with or without a blank behind it.
_NEGATIVE_SPACE = re.compile(r"(?<!\\)\\!\s?")
_INVISIBLE = re.compile(r"[\u200b-\u200f\u2060-\u2064\ufeff\u00ad\u202a-\u202e\u2066-\u2069]")
_SYMBOLS = str.maketrans(
    {
        "×": r"\times ", "✕": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "∙": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/",
        "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\neq ", "∪": r"\cup ", "∩": r"\cap ",
        "∈": r"\in ", "≈": r"\approx ", "≡": r"\equiv ", "±": r"\pm ", "°": r"^{\circ}", "∅": r"\emptyset ",
        "、": ",", "，": ",", "٫": ".", "٬": ",",
        "。": ".", "“": '"', "”": '"', "’": "'", "‘": "'", "％": "%", "﹪": "%", "٪": "%",
    }
)  # fmt: skip
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_ROOT = re.compile(r"√\s*(\d+(?:\.\d+)?|[a-zA-Z]|\([^()]*\)|\{[^{}]*\})")


def fold_unicode(text: str, *, keep_lines: bool = False) -> str:
    """Digits of any script, full-width forms, minus signs, vulgar fractions and operators as ASCII or LaTeX.

    With `keep_lines` the text stays in its lines.
    """
    spaces = _SPACES_IN_LINES if keep_lines else _SPACES
    text = _NEGATIVE_SPACE.sub("", text)
    if text.isascii():
        return spaces.sub(" ", text)
    text = _SUPERSCRIPT_RUN.sub(lambda run: "^{" + run.group().translate(_SUPERSCRIPTS) + "}", text)
    text = _ROOT.sub(lambda root: r"\sqrt{" + root.group(1).strip("(){}") + "}", text)
    text = text.translate(_MINUS_SIGNS).translate(_SYMBOLS)
    text = _DASH_MINUS.sub("-", text)
    text = _INVISIBLE.sub("", text)
    return spaces.sub(" ", "".join(_fold(character) for character in text))


def _fold(character: str) -> str:
    code = ord(character)
    if code < 128:
        return character
    decimal = unicodedata.decimal(character, None)
    if decimal is not None:
        return str(decimal)
    if 0xFF01 <= code <= 0xFF5E:  # full-width forms of the ASCII characters
        return chr(code - 0xFEE0)
    if unicodedata.category(character) == "No" and "⁄" in unicodedata.normalize("NFKC", character):
        numerator, _, denominator = unicodedata.normalize("NFKC", character).partition("⁄")
        return rf"\frac{{{numerator}}}{{{denominator}}}"
    return character
