r"""The marks that a writer puts on a final answer, and what stands behind each. Pure text in, text out; linear.

A box, an answer tag and `#### 18` are strong: nothing else is written that way. A phrase ("the answer is") is weak, and
so are hashes before words, which may be a heading.
"""

import re
from dataclasses import dataclass
from enum import IntEnum

from reward.math.prose import math_span_at, spans_and

# Only marks near the end can be the last one; more of them would cost quadratic time on a text made of marks.
MAX_MARKS = 32

_BOX = re.compile(
    r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s{0,4}(?:(?P<brace>\{)|(?P<number>[-+]?\\?\$?\d[\d,]*(?:\.\d+)?|[A-Z]\b))"
)
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_HASHES = re.compile(r"(?<!#)####[ \t]*([^\n#]*)")
# "#### Step 2", "#### 1. Find the area": Markdown headings have four hashes too.
_HEADING = re.compile(
    r"[\W_]*(?:(?:step|part|case|section|method|problem|solution|question|approach|explanation|calculation|example|day|"
    r"check|checking|verification|verify|conclusion|summary|result|note|analysis|given|answer|final answer)\b"
    r"|\d{1,2}[.)]\s+[A-Za-z])",
    re.IGNORECASE,
)
_STATES_A_VALUE = re.compile(r"[\W_]*(?:\d|\\|[A-Za-z]\s*=)")
# "the answer is", "Final Answer:", "**Answer:**", "the correct answer to the question is", "the correct option is".
# White space is bounded throughout: two unbounded runs side by side take quadratic time on a text of blanks.
_PHRASE = re.compile(
    r"\b(?:answers?|(?:correct|right|best)\s{1,4}(?:option|choice))\b(?:\s{1,4}(?:to|of|for)\b[^.:=\n]{0,80}?)?"
    r"\s{0,4}\*{0,2}\s{0,4}"
    r"(?:\b(?:is|are|was|equals|would\s+be|should\s+be|will\s+be|must\s+be)\b\s{0,4}:?|[:=：])"
    r"|(?:答案|答)\s{0,4}(?:是|为|為|：|:|=)",
    re.IGNORECASE,
)
# Where a sentence that states an answer goes on to something else.
_SENTENCE_END = re.compile(
    r"[.。!?;；](?=\s|$|\*)|\n|,?\s+\b(?:because|since|so|which|where|when|after|but|given|as|rather|instead)\b|,\s+not\b",
    re.IGNORECASE,
)
# "The answer is correct." says nothing of what it is.
_REMARK = re.compile(
    r"\W*(?:(?:therefore|thus|also|indeed|now|then|simply|clearly|definitely|probably)\s+)?"
    r"(?:not\s+)?(?:correct|incorrect|wrong|clear|obvious|verified|confirmed|reasonable|unique|found|given|shown|above|"
    r"below|as follows|the following|following|it|this|that|here|consistent|valid|accurate)\b",
    re.IGNORECASE,
)
_MAX_WORDS = 6


class Strength(IntEnum):
    """How sure a mark is: a stronger one beats a weaker one wherever they stand."""

    REMARK = 0
    """A phrase that most likely speaks about an answer: "the answer is correct"."""
    WEAK = 1
    STRONG = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A mark and what it marks.

    Example:
        Mark(start=3, end=14, text="12", kind="boxed", strength=Strength.STRONG)
    """

    start: int
    end: int
    text: str
    kind: str
    """"boxed", "tag", "hashes" or "phrase"."""
    strength: Strength


def marks_in(text: str) -> list[Mark]:
    """The last marks of each kind that mark anything."""
    return [*_boxes(text), *_tags(text), *_hashes(text), *_phrases(text)]


def _boxes(text: str) -> list[Mark]:
    marks = []
    for match in list(_BOX.finditer(text))[-MAX_MARKS:]:
        if match["brace"] is None:
            start, end = match.span("number")
            closes = end
        else:
            start = match.end()
            closing = closing_brace(text, start - 1)
            if closing is None:
                continue  # a box that is never closed was cut off in the middle of its answer
            end, closes = closing, closing + 1
        if content := text[start:end].strip():
            marks.append(Mark(start=match.start(), end=closes, text=content, kind="boxed", strength=Strength.STRONG))
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


def _tags(text: str) -> list[Mark]:
    marks = []
    opened = None
    for match in _TAG.finditer(text):
        if not match.group(1):
            opened = match
        elif opened is not None:
            content = text[opened.end() : match.start()].strip()
            if content:
                marks.append(
                    Mark(start=opened.start(), end=match.end(), text=content, kind="tag", strength=Strength.STRONG)
                )
            opened = None
    return marks[-MAX_MARKS:]


def _hashes(text: str) -> list[Mark]:
    marks = []
    for match in _HASHES.finditer(text):
        content = match.group(1).strip()
        if content and not _HEADING.match(content):
            strength = Strength.STRONG if _STATES_A_VALUE.match(content) else Strength.WEAK
            marks.append(Mark(start=match.start(), end=match.end(), text=content, kind="hashes", strength=strength))
    return marks


def _phrases(text: str) -> list[Mark]:
    marks = []
    for match in list(_PHRASE.finditer(text))[-MAX_MARKS:]:
        content, end = _stated(text, match.end())
        if content:
            strength = Strength.REMARK if _REMARK.match(content) else Strength.WEAK
            marks.append(Mark(start=match.start(), end=end, text=content, kind="phrase", strength=strength))
    return marks


def _stated(text: str, start: int) -> tuple[str, int]:
    """What a phrase that ends at `start` states, and where that ends; "" for nothing that can be compared."""
    window = text[start : start + 600]
    skipped = len(window) - len(window.lstrip(" \t\n*:："))
    window = window[skipped:]
    start += skipped
    box = _BOX.match(window)
    if box is not None:
        end = closing_brace(window, box.end() - 1) if box["brace"] is not None else box.end() - 1
        return ("", start) if end is None else (window[: end + 1], start + end + 1)
    if math_span_at(window) is not None:
        content, length = spans_and(window)
        return content, start + length
    stop = _SENTENCE_END.search(window)
    sentence = window[: stop.start()] if stop is not None else window
    return _statement(sentence), start + len(sentence)


def _statement(sentence: str) -> str:
    """The answer in the words behind "the answer is"."""
    sentence = sentence.strip(" *_`\t")
    if "\\" in sentence or re.search(r"\d", sentence):
        return sentence
    # Words are an answer when they are few ("Tuesday", "(B)"); "not clear from what is given" is none.
    is_answer = (
        len(sentence.split()) <= _MAX_WORDS and re.match(r"\W*(?:not|unclear|unknown)\b", sentence, re.I) is None
    )
    return sentence if is_answer else ""
