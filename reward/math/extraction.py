r"""Find the final answer in a completion: the last strong mark, else the last weak one, else the last formula.

Strong marks are \boxed{}, \fbox{}, <answer></answer> and "#### 18"; weak ones are phrases such as "the answer is". Of
equally strong marks the last one counts, even when it is wrong and an earlier one was right: a policy that could list
guesses would be paid for listing them. Pure text in, text out; linear in the length of the completion.
"""

import re
from dataclasses import dataclass

from reward.math.marks import Mark, Strength, marks_in
from reward.math.prose import last_statement, math_span_at, span_content
from reward.math.unicode_folding import fold_unicode

MAX_TEXT_CHARS = 200_000
"""Of a longer completion only the end is read: the final answer stands there."""
MAX_ANSWER_CHARS = 1000
"""Of a longer answer, what is recorded: a completion that is one endless answer must not be stored twice."""
_MAX_NESTING = 8
_MAX_BARE_CHARS = 60
_MAX_BARE_WORDS = 3
_THINKING_ENDS = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
# A side of "5 + 7 = 12" that only computes: no letter but those of commands.
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z]*\{)")
_SYMBOL = re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])")
_EQUALS = re.compile(r"(?<![<>!:=\\])=(?!=)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractedAnswer:
    """A final answer as it stands in the text.

    Example:
        ExtractedAnswer(text="12 apples", mark="phrase")
    """

    text: str
    mark: str
    """What marked it: "boxed", "tag", "hashes" or "phrase"; without a mark "number", or "bare" for a formula, and for a
    word that is all of the completion."""


def extract_answer(text: str) -> ExtractedAnswer | None:
    """The final answer of a completion, or None when it has no mark, no formula and no number."""
    text = text[-MAX_TEXT_CHARS:]
    *_, behind = _THINKING_ENDS.split(text)
    marked = _marked(behind) if len(behind) < len(text) else None
    marked = marked or _marked(text)
    if marked is not None and marked.strength is not Strength.REMARK:
        return ExtractedAnswer(text=_result(marked.text), mark=marked.kind)
    unmarked = _unmarked(behind.strip() or text)
    if unmarked is None and marked is not None:
        return ExtractedAnswer(text=marked.text, mark=marked.kind)
    return unmarked


def final_answer(text: str) -> str | None:
    """The text of the final answer, at most MAX_ANSWER_CHARS of it: for records and for counting votes."""
    found = extract_answer(text)
    return None if found is None else found.text[:MAX_ANSWER_CHARS]


def _marked(text: str) -> Mark | None:
    """The strongest last mark; where marks are nested, the innermost last one in it, at least as strong as phrases."""
    found: Mark | None = None
    for _ in range(_MAX_NESTING):
        marks = marks_in(text)
        if not marks:
            break
        # Of two that end together the outer one, into which the next round looks.
        inner = max(marks, key=lambda mark: (mark.strength, mark.end, -mark.start))
        if found is not None and inner.strength is Strength.REMARK:
            break
        # What stands in a strong mark stays strong, however it is said there.
        strength = inner.strength if found is None else max(found.strength, inner.strength)
        found = Mark(start=inner.start, end=inner.end, text=inner.text, kind=inner.kind, strength=strength)
        if found.text == text:
            break
        text = found.text
    return found


def _unmarked(text: str) -> ExtractedAnswer | None:
    text = fold_unicode(text, keep_lines=True).strip()
    if _is_bare(text):
        return ExtractedAnswer(text=_result(text), mark="bare")
    found = last_statement(text)
    if found is None:
        is_word = 0 < len(text) <= _MAX_BARE_CHARS and len(text.split()) <= _MAX_BARE_WORDS
        return ExtractedAnswer(text=text, mark="bare") if is_word and re.search(r"\w", text) else None
    is_number = re.fullmatch(r"[-+]?[\d.,]+(?:/\d+)?", found) is not None
    return ExtractedAnswer(text=_result(found), mark="number" if is_number else "bare")


def _is_bare(text: str) -> bool:
    """Whether `text` is one formula and no sentence: no words, and no two numbers with only a space between."""
    if not text or len(text) > _MAX_BARE_CHARS or "\n" in text or re.search(r"\d\s+\d(?!\d*/\d|\d\d\b)|:\s", text):
        return False
    return re.search(r"(?<!\\)(?<![^\W\d_])[^\W\d_]{2,}", text) is None and re.search(r"\d|\\[a-z]", text) is not None


def _result(text: str) -> str:
    """`text`, or what stands behind the last "=" where all of it only computes: "5 + 7 = 12" states 12."""
    text = text.strip()
    whole = math_span_at(text)
    if whole is not None and whole.end() == len(text):
        text = span_content(whole)
    sides = _EQUALS.split(text)
    if len(sides) < 2 or not re.search(r"[\d\\]", sides[-1]) or "\\text" in text:
        return text
    if any(_LETTER.search(side) for side in sides[:-1]) or _SYMBOL.search(sides[-1]) or "," in sides[0]:
        return text  # "x = 5" names what it gives
    return sides[-1].strip()
