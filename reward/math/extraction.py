"""Find the final answer in a completion: the last marked one, else the last number.

Marks are \\boxed{}, \\fbox{}, <answer></answer>, "#### " and phrases such as "the answer is". The last one counts, even
when it is wrong and an earlier one was right: a policy that could list guesses would be paid for listing them. Pure
text in, text out; linear in the length of the completion.
"""

import re
from dataclasses import dataclass

from reward.math.unicode_folding import fold_unicode

MAX_TEXT_CHARS = 200_000
"""Of a longer completion only the end is read: the final answer stands there."""
MAX_ANSWER_CHARS = 1000
"""Of a longer answer, what is recorded: a completion that is one endless answer must not be stored twice."""
_MAX_NESTING = 8
# Only marks near the end can be the last one; more of them would cost quadratic time on a text made of marks.
_MAX_MARKS = 32

_BOX = re.compile(r"\\(?:boxed|fbox)[ ]{0,4}(\{|\d)")
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_HASHES = re.compile(r"####[ \t]*([^\n#]*)")
# Markdown headings have four hashes too: "#### Step 2" is no answer.
_HEADING = re.compile(
    r"\**\s*(?:step|part|case|section|method|problem|solution|question|approach|explanation|calculation)\b",
    re.IGNORECASE,
)
# "the answer is", "Final Answer:", "**Answer:**", "the correct answer to the question is", "answer = ". White space is
# bounded throughout: two unbounded runs side by side take quadratic time on a text of blanks.
_PHRASE = re.compile(
    r"\banswers?\b(?:\s{1,4}(?:to|of|for)\b[^.:=\n]{0,80}?)?\s{0,4}\*{0,2}\s{0,4}"
    r"(?:\b(?:is|are|was|equals|would\s+be|should\s+be|will\s+be|must\s+be)\b\s{0,4}:?|[:=：])"
    r"|(?:答案|答)\s{0,4}(?:是|为|為|：|:|=)",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    # In front of a number no letter or digit may stand, except one of a script that is written without spaces.
    r"(?<![A-Za-z0-9_.])[-+]?\$?"
    r"(?:\d{1,4}[ ]\d{1,3}/\d{1,3}(?!\d)"  # a mixed number
    r"|(?:\d+(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+\.\d+|\.\d+|\d+)(?:[eE][-+]?\d{1,3}(?!\w))?(?:[ ]?/[ ]?\d+(?!\.?\d))?)"
    r"(?:[ ]?(?:\\times|\\cdot|\*|x)[ ]{0,2}10[ ]?\^[ ]?\{?-?\d{1,3}\}?)?"  # a power of ten
    r"(?:[ ]?\\?%)?"
)
_FRACTION = re.compile(r"[-+]?\\[dtc]?frac\s{0,2}\{[^{}]{1,40}\}\s{0,2}\{[^{}]{1,40}\}")
# Where a sentence that states an answer goes on to something else.
_SENTENCE_END = re.compile(
    r"[.。!?;；](?=\s|$|\*)|\n|,?\s+\b(?:because|since|so|which|where|when|after|but|given|as|not|rather|instead)\b",
    re.IGNORECASE,
)
_MATH_SPAN = re.compile(r"\s*(?:\$\$(.+?)\$\$|\$([^$\n]+?)\$(?!\d)|\\\[(.+?)\\\]|\\\((.+?)\\\))", re.DOTALL)
_MAX_BARE_CHARS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractedAnswer:
    """A final answer as it stands in the text.

    Example:
        ExtractedAnswer(text="12 apples", mark="phrase")
    """

    text: str
    mark: str
    """What marked it: "boxed", "tag", "hashes" or "phrase"; without a mark "bare" (the completion is nothing but a
    formula) or "number" (the last one in it)."""


def extract_answer(text: str) -> ExtractedAnswer | None:
    """The final answer of a completion, or None when it has no mark and no number."""
    text = text[-MAX_TEXT_CHARS:]
    marked = _last_marked(text)
    if marked is not None:
        return marked
    text = fold_unicode(text)
    if _is_bare(text):
        return ExtractedAnswer(text=text.rsplit("=", 1)[-1].strip(), mark="bare")
    number = last_number(text)
    return None if number is None else ExtractedAnswer(text=number, mark="number")


def final_answer(text: str) -> str | None:
    """The text of the final answer, at most MAX_ANSWER_CHARS of it: for records and for counting votes."""
    found = extract_answer(text)
    return None if found is None else found.text[:MAX_ANSWER_CHARS]


def last_number(text: str) -> str | None:
    """The last number or fraction of numbers in `text`, as written."""
    last = None
    for pattern in (_NUMBER, _FRACTION):
        for match in pattern.finditer(text):
            # A fraction's end lies behind the numbers in it, so it wins over its own denominator.
            if last is None or match.end() > last.end():
                last = match
    return None if last is None else last.group().strip()


def _is_bare(text: str) -> bool:
    """Whether `text` is one formula and no sentence: no words, and no two numbers with only a space between."""
    text = text.strip()
    if not text or len(text) > _MAX_BARE_CHARS or re.search(r"\d\s+\d(?!\d*/\d)|:\s", text):
        return False
    return re.search(r"(?<!\\)(?<![A-Za-z])[A-Za-z]{2,}", text) is None and re.search(r"\d|\\[a-z]", text) is not None


def numbers_in(text: str) -> list[str]:
    """All numbers in `text`, as written."""
    return [match.group().strip() for match in _NUMBER.finditer(text)]


def _last_marked(text: str) -> ExtractedAnswer | None:
    """The content of the last mark; where marks are nested, of the innermost last one."""
    found: ExtractedAnswer | None = None
    for _ in range(_MAX_NESTING):
        marks = [*_boxes(text), *_tags(text), *_hashes(text), *_phrases(text)]
        if not marks:
            break
        # By the end; of two that end together the outer one, into which the next round looks.
        _, _, found = max(marks, key=lambda mark: (mark[1], -mark[0]))
        if found.text == text:
            break
        text = found.text
    return found


_Mark = tuple[int, int, ExtractedAnswer]
"""(start, end, answer)"""


def _boxes(text: str) -> list[_Mark]:
    marks = []
    for match in list(_BOX.finditer(text))[-_MAX_MARKS:]:
        if match.group(1) != "{":
            marks.append((match.start(), match.end(), ExtractedAnswer(text=match.group(1), mark="boxed")))
            continue
        end = closing_brace(text, match.end() - 1)
        # A box that is never closed was cut off in the middle of its answer.
        if end is not None and text[match.end() : end].strip():
            content = text[match.end() : end].strip()
            marks.append((match.start(), end + 1, ExtractedAnswer(text=content, mark="boxed")))
    return marks


def closing_brace(text: str, opening: int) -> int | None:
    """Index of the brace that closes the one at `opening`; escaped braces do not count. None when there is none."""
    depth = 0
    index = opening
    # No answer is longer, and without a bound a text of opened boxes alone would take quadratic time.
    end = min(len(text), opening + 2000)
    while index < end:
        character = text[index]
        if character == "\\":
            index += 2
            continue
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return index
        index += 1
    return None


def _tags(text: str) -> list[_Mark]:
    marks = []
    opened = None
    for match in _TAG.finditer(text):
        if not match.group(1):
            opened = match
        elif opened is not None:
            content = text[opened.end() : match.start()].strip()
            if content:
                marks.append((opened.start(), match.end(), ExtractedAnswer(text=content, mark="tag")))
            opened = None
    return marks[-_MAX_MARKS:]


def _hashes(text: str) -> list[_Mark]:
    return [
        (match.start(), match.end(), ExtractedAnswer(text=match.group(1).strip(), mark="hashes"))
        for match in _HASHES.finditer(text)
        if match.group(1).strip() and not _HEADING.match(match.group(1))
    ]


def _phrases(text: str) -> list[_Mark]:
    marks = []
    for match in list(_PHRASE.finditer(text))[-_MAX_MARKS:]:
        content, end = _stated(text, match.end())
        if content:
            marks.append((match.start(), end, ExtractedAnswer(text=content, mark="phrase")))
    return marks


def _stated(text: str, start: int) -> tuple[str, int]:
    """What a phrase that ends at `start` states, and where that ends; "" for nothing that can be compared."""
    window = text[start : start + 600]
    skipped = len(window) - len(window.lstrip(" \t\n*:："))
    window = window[skipped:]
    start += skipped
    span = _MATH_SPAN.match(window)
    box = _BOX.match(window)
    if box is not None:
        end = closing_brace(window, box.end() - 1) if box.group(1) == "{" else box.end() - 1
        return ("", start) if end is None else (window[: end + 1], start + end + 1)
    if span is not None:
        content = next(group for group in span.groups() if group is not None)
        return content.strip(), start + span.end()
    stop = _SENTENCE_END.search(window)
    sentence = window[: stop.start()] if stop is not None else window
    return _statement(sentence), start + len(sentence)


def _statement(sentence: str) -> str:
    """The answer in the words behind "the answer is"."""
    if "\\boxed" in sentence or "<answer>" in sentence:
        return sentence  # the next round looks inside
    # "5 + 7 = 12" states 12; "x = 5" states 5.
    sentence = sentence.rsplit("=", 1)[-1].strip(" *_`\t")
    if "\\" in sentence or not re.search(r"\d", sentence):
        # A formula, or words: words are an answer when they are few ("Tuesday", "(B)"); "not clear from what is given"
        # is none.
        return sentence if "\\" in sentence or len(sentence.split()) <= 4 else ""
    return sentence
