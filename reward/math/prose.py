r"""The last formula or number in a text without a mark: as a whole, with what stands around it where that changes it.

"the area is 50 cm^2" says 50 and not 2, "-1 + sqrt(3)" is no 3, "not 18" is no 18.
"""

import re
from collections.abc import Iterator

from reward.math.plain_numbers import SCALE_WORDS
from reward.math.words import CHANGING, FUNCTION_WORDS, NEGATIONS

MAX_LINE_CHARS = 2000
"""Of a longer line only the end is read."""
_MAX_SPAN_CHARS = 1000

_SPAN = re.compile(
    rf"\$\$(?P<display>[^$]{{1,{_MAX_SPAN_CHARS}}})\$\$|(?<!\\)\$(?P<inline>[^$\n]{{1,{_MAX_SPAN_CHARS}}}?)(?<!\\)\$(?!\d)"
    rf"|\\\[(?P<brackets>(?:(?!\\\[).){{1,{_MAX_SPAN_CHARS}}}?)\\\]"
    rf"|\\\((?P<parens>(?:(?!\\\().){{1,{_MAX_SPAN_CHARS}}}?)\\\)"
    rf"|(?P<matrix>\\begin\{{(?P<kind>[bpvBV]?matrix)\}}(?:(?!\\begin).){{1,{_MAX_SPAN_CHARS}}}?\\end\{{(?P=kind)\}})",
    re.DOTALL,
)
_BETWEEN_SPANS = re.compile(r"\s*(?:,\s*(?:and|or)\b|,|and\b|or\b)\s*")
_NUMBER = (
    r"\d{1,4}[ ]\d{1,3}/\d{1,3}(?!\d)"  # a mixed number
    r"|\d{1,3}(?:(?:,\\!|,|\{,\}|\\,|[ ])\d{3})+(?!\d)(?:\.\d+)?"
    r"|\d+\.\d+|\.\d+|\d+"
)
_EXPONENT = r"(?:[eE][-+]?\d{1,3}(?!\w))?"
_TOKEN = re.compile(
    rf"(?P<number>(?:{_NUMBER}){_EXPONENT}(?:[ ]?\\?%)?)"
    r"|(?P<command>\\[A-Za-z]+|\\[{}])"
    r"|(?P<word>[^\W\d_](?:[^\W\d_]|'(?=[a-z]))*)"
    r"|(?P<operator>[-+*/=<>^_!]|×|⋅|·|÷)"
    r"|(?P<bracket>[(){}\[\]|])"
    r"|(?P<space>\s+)"
    r"|(?P<other>.)",
    re.DOTALL,
)
_OPERATOR_COMMANDS = frozenset(
    re.findall(r"\w+", "times cdot div pm mp le leq ge geq lt gt ne neq cup cap in approx equiv to setminus")
)
_EXTENDING = SCALE_WORDS | {"percent", "dozen"}
_PER_CENT = re.compile(r"\s{0,2}per\s+cent\b", re.IGNORECASE)


def math_span_at(text: str) -> re.Match[str] | None:
    """The formula between dollar signs or TeX's brackets with which `text` begins."""
    match = _SPAN.match(text)
    return match if match is not None and _is_formula(match) else None


def span_content(match: re.Match[str]) -> str:
    """What stands between the signs."""
    return next(group for group in match.groups() if group is not None).strip()


def spans_and(text: str) -> tuple[str, int]:
    """The formula that `text` begins with, with those that a comma, "and" or "or" joins to it; and where it ends."""
    parts, end = [], 0
    while (span := math_span_at(text[end:])) is not None:
        parts.append(span_content(span))
        end += span.end()
        joint = _BETWEEN_SPANS.match(text, end)
        if joint is None or math_span_at(text[joint.end() :]) is None:
            break
        end = joint.end()
    return ", ".join(parts), end


def _is_formula(match: re.Match[str]) -> bool:
    """Whether it is mathematics: "$5 and then $" is money."""
    inline = match["inline"]
    if inline is None:
        return True
    return inline == inline.strip() or re.search(r"[\\=^]", inline) is not None


def last_statement(text: str) -> str | None:
    """The last formula or number in `text`, as written; None when it has none."""
    spans = [match for match in _SPAN.finditer(text) if _is_formula(match)]
    last = spans[-1] if spans else None
    behind = text[last.end() :] if last is not None else text
    run = _last_run(behind)
    if run is not None or last is None:
        return run
    # A formula that is negated is none: "it is not $18$".
    before = re.findall(r"[^\W\d_]+(?:'[a-z]+)?", text[max(0, last.start() - 30) : last.start()].lower())
    if before and before[-1] in NEGATIONS:
        return last_statement(text[: last.start()])
    content = span_content(last)
    has_value = re.search(r"\d|\\[A-Za-z]", content) is not None
    return content if has_value else last_statement(text[: last.start()]) or content


def _last_run(text: str) -> str | None:
    """The last run of formula in words."""
    for line in reversed(text.splitlines()[-200:]):
        runs = list(_runs(line[-MAX_LINE_CHARS:].replace("$", "").replace("€", "").replace("£", "")))
        for run, before in reversed(runs):
            if before in NEGATIONS:
                continue
            return f"{before} {run}" if before in CHANGING or before in ("or", "negative", "minus") else run
    return None


def _runs(line: str) -> Iterator[tuple[str, str]]:
    """(a run of numbers and formulas, the word before it), in order."""
    tokens = [(match.lastgroup or "", match.group(), match.start()) for match in _TOKEN.finditer(line)]
    index, before = 0, ""
    previous_end, previous_was_number = 0, False
    while index < len(tokens):
        kind, token, start = tokens[index]
        if kind == "word" and not _is_symbol(token):
            before = token.lower()
        if not _opens(tokens, index):
            index += 1
            continue
        stop = _run_stop(tokens, index)
        end = tokens[stop][2] if stop < len(tokens) else len(line)
        text = _trimmed(line[start:end])
        is_unit = previous_was_number and line[previous_end:start].isspace() and re.match(r"[A-Za-z]", text) is not None
        glued = (
            start > 0
            and (line[start - 1].isalpha() or line[start - 1] in "^_.")
            and not _is_east_asian(line[start - 1])
        )
        is_label = re.match(r"[A-Za-z]\d", text) is not None  # "x2"
        if (
            text
            and re.search(r"\d|\\[A-Za-z]", text)
            and not is_label
            and not is_unit
            and not glued
            and text[0] not in "^_"
        ):
            text += _scale_behind(line, end)
            yield text, before
            previous_was_number = text[-1].isdigit()
            before = ""
        previous_end = end
        index = max(stop, index + 1)


def _is_symbol(word: str) -> bool:
    return (len(word) == 1 and word.isascii()) or word in FUNCTION_WORDS


def _opens(tokens: list[tuple[str, str, int]], index: int) -> bool:
    """Whether a run of formula may begin here."""
    kind, token, _ = tokens[index]
    return kind in ("number", "command", "operator", "bracket") or (kind == "word" and _is_symbol(token))


def _run_stop(tokens: list[tuple[str, str, int]], index: int) -> int:
    """Index of the first token behind the run that begins at `index`."""
    depth = 0
    while index < len(tokens):
        kind, token, _ = tokens[index]
        if kind == "bracket":
            depth += 1 if token in "([{" else -1 if token in ")]}" else 0
        elif kind == "space":
            if depth <= 0 and not (_joins(tokens, index - 1, -1) or _joins(tokens, index + 1, 1)):
                return index
        elif kind == "other":
            if token not in ",;" or depth <= 0:
                return index
        elif kind == "word" and not _is_symbol(token) and depth <= 0:
            return index
        index += 1
    return index


def _joins(tokens: list[tuple[str, str, int]], index: int, direction: int) -> bool:
    """Whether the token there is an operator that reaches across a space: "3 + 4", but not "3 -4" or "- 3 apples"."""
    if not 0 <= index < len(tokens):
        return False
    kind, token, _ = tokens[index]
    if kind == "command":
        return token[1:] in _OPERATOR_COMMANDS or direction < 0
    if kind != "operator" or token == "!":
        return False
    if direction > 0 and token in "+-":
        return index + 1 < len(tokens) and tokens[index + 1][0] == "space"
    return True


def _trimmed(text: str) -> str:
    """A run without operators and brackets at its ends that belong to the sentence."""
    while True:
        shorter = text.strip(" \t").strip("|")
        shorter = re.sub(r"(?:[-+*/=<>^_]|\\(?:times|cdot|div|approx|le|ge))\s*$", "", shorter)
        shorter = re.sub(r"^[*/=<>!]+", "", shorter)
        for opening, closing in ("()", "[]", "{}"):
            if shorter.count(opening) == shorter.count(closing):
                continue
            if shorter[:1] == opening:
                shorter = shorter[1:]
            elif shorter[-1:] == closing:
                shorter = shorter[:-1]
        if re.fullmatch(r"\(\s*[-+]?[\d.,]+\s*\)", shorter):
            shorter = shorter[1:-1]
        if shorter == text:
            return text
        text = shorter


def _scale_behind(line: str, end: int) -> str:
    """A word behind a number that belongs to its value: " million", " percent"."""
    if _PER_CENT.match(line, end):
        return " percent"
    word = re.match(r"\s{0,2}([A-Za-z]+)\b", line[end : end + 20])
    return f" {word.group(1)}" if word is not None and word.group(1).lower() in _EXTENDING else ""


def _is_east_asian(character: str) -> bool:
    return "\u3040" <= character <= "\u30ff" or "\u3400" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7af"
