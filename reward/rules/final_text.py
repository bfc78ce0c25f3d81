"""What a completion gives as its answer, for rewards that read words, lists or grids: the text as it stands.

The answer behind a mark, the strongest kind of mark first and of equals the last; without a mark all of the text. What
stands in a `<think>` block is no answer. Linear in the length of the completion.
"""

import re
from collections.abc import Collection

from reward.thought import without_thought

_BOX = re.compile(r"\\(?:boxed|fbox)\s{0,4}\{")
_HASHES = re.compile(r"^[ \t]*####[ \t]+(\S[^\n]*)$", re.MULTILINE)
_PHRASE = re.compile(
    r"\b(?:answer|result|choice|option)\b[ \t]{0,4}\*{0,2}[ \t]{0,4}(?:\b(?:is|was|equals)\b[ \t]{0,4}:?|[:=])", re.I
)
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z(\"']|\s*$)")
_TEXT_MACRO = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathit|textit)\s{0,4}\{([^{}]*)\}")
# A command ends where the macro begins: without it \cdot\text{m} would be one word.
_COMMAND_BEFORE = re.compile(r"(\\[A-Za-z]+)(?=\\(?:text|textbf|mathrm|mathbf|mathit|textit)\s{0,4}\{)")
_FENCE = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n`]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
MAX_BOX_CHARS = 20_000
"""Of a box; without a bound a text of opened boxes would take quadratic time."""
_MAX_MARKS = 32


def final_text(completion: str) -> str:
    """The answer: what the last `<answer>` block, box, line of `####` or "the answer is" holds, else the whole text."""
    text = without_thought(completion)
    marked = _marked(text)
    return text.strip() if marked is None else marked


def marked_text(completion: str) -> str | None:
    """The answer behind a mark; None without one."""
    return _marked(without_thought(completion))


def fenced_text(completion: str, languages: Collection[str]) -> str:
    """What is asked for as code: the last fenced block of one of the languages ("" for none) in the last `<answer>`, or
    in the whole text; without a block all of it. A block that is not closed ends with the text."""
    text = without_thought(completion)
    tagged = _last_tagged(text)
    text = text if tagged is None else tagged
    blocks = [body for language, body in _FENCE.findall(text) if language.lower() in languages]
    return str(blocks[-1] if blocks else text).strip()


def _marked(text: str) -> str | None:
    tagged = _last_tagged(text)
    if tagged is not None:
        return tagged
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    lines = _HASHES.findall(text)
    if lines:
        return str(lines[-1]).strip()
    return _last_stated(text)


def plain(text: str) -> str:
    """`text` without the marks of LaTeX and Markdown that stand around words: `\\text{B}`, `**B**`, `$B$`."""
    text = _TEXT_MACRO.sub(r"\1", _COMMAND_BEFORE.sub(r"\1 ", text.strip()))
    return text.replace("**", "").replace("\\ ", " ").strip(" \t\n*_`$")


def _last_tagged(text: str) -> str | None:
    end = text.lower().rfind("</answer>")
    start = text.lower().rfind("<answer>", 0, max(end, 0))
    return text[start + len("<answer>") : end].strip() if end >= 0 and start >= 0 else None


def _last_boxed(text: str) -> str | None:
    for match in reversed(list(_BOX.finditer(text))[-_MAX_MARKS:]):
        depth, place = 1, match.end()
        while depth and place < min(len(text), match.end() + MAX_BOX_CHARS):
            if text[place] == "\\":
                place += 1
            depth += {"{": 1, "}": -1}.get(text[place : place + 1], 0)
            place += 1
        if depth == 0:
            return plain(text[match.end() : place - 1])
    return None


def _last_stated(text: str) -> str | None:
    marks = list(_PHRASE.finditer(text))
    if not marks:
        return None
    stated = text[marks[-1].end() :].lstrip(" \t*:")
    line, _, below = stated.partition("\n")
    if not line.strip(" *"):
        return below.strip() or None  # a list or a grid begins on the next line
    end = _SENTENCE_END.search(line)
    return plain(line if end is None else line[: end.start()]) or None
