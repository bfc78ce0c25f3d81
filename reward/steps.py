"""The steps of a completion's reasoning: where its text is split, and which of its tokens ends each step.

Steps cover the text: what stands between two of them, such as blank lines, belongs to the one before it. A token that
holds the end of a step is its last token, also where the next step begins inside it; so the end of the text is not
enough, and the bytes of the tokens are laid out beside it. What ends a completion, such as its end token, belongs to
its last step, and so does everything behind a stop string.

Dimension: T tokens of a completion.
"""

import codecs
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reward.types import StepReward
from rollout.types import TokenIds

TokenBytes = Sequence[bytes]
"""[V] the bytes that each token stands for."""
# What ends a step, and what separates it from the next. The end of a sentence is a mark with a blank behind it, so that
# 3.5 is one number; what closes quotes and parentheses belongs to it. Chinese and Japanese have no blanks there.
_SEPARATORS = {
    "line": re.compile(r"\n\s*"),
    "sentence": re.compile(
        r"[.!?][\"')\]\u2019\u201d]*\s+|[\u3002\uff01\uff1f]+[\"')\]\u2019\u201d\u300d\u300f\uff09]*\s*|\n\s*"
    ),
    "paragraph": re.compile(r"\n[^\S\n]*\n\s*"),
}
_NUMBER_OF_LIST = re.compile(r"\s*[-*#(]*\s*\d{1,3}")
_SHORTENED = re.compile(r"(?<![^\W_])(?:[A-Z]|Mr|Mrs|Ms|Dr|Prof|St|[Aa]pprox|e\.g|i\.e|[Vv]s|cf|Fig|Eq)\Z")
MAX_SHORTENED = 8
"""Characters that are looked back for one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a text."""

    text: str
    """Without blanks at its ends; never empty."""
    end: int
    """Characters of the text up to its end, and that of what separates it from the next."""


def split_steps(text: str, splitter: str) -> tuple[Step, ...]:
    """The steps of a text by the name of a splitter (`reward.config.StepsConfig`); none for a blank text."""
    steps: list[Step] = []
    begin = 0
    for separator in [*_SEPARATORS[splitter].finditer(text), None]:
        if separator is not None and _is_inside(text, begin, separator):
            continue
        end = len(text) if separator is None else separator.end()
        words = text[begin:end].strip()
        if words:
            steps.append(Step(text=words, end=end))
            begin = end
    # Blanks at the end of the text have no step of their own.
    return (*steps[:-1], Step(text=steps[-1].text, end=len(text))) if steps else ()


def _is_inside(text: str, begin: int, separator: re.Match[str]) -> bool:
    """Whether a dot ends no sentence, of one that begins at `begin`: "1. First", "Mr. Li", "J. Smith"."""
    dot = separator.start()
    if text[dot] != "." or "\n" in separator[0]:
        return False
    is_of_list = dot - begin < 2 * MAX_SHORTENED and _NUMBER_OF_LIST.fullmatch(text, begin, dot) is not None
    return is_of_list or _SHORTENED.search(text[max(begin, dot - MAX_SHORTENED) : dot]) is not None


def steps_with_rewards(
    steps: Sequence[Step], rewards: Sequence[float], text: str, token_ids: TokenIds, token_bytes: TokenBytes
) -> tuple[StepReward, ...]:
    """The rewards of the steps of `text`, at the ends of the steps in tokens.

    Errors: `ValueError` where the tokens do not spell the text.
    """
    if not steps:
        return ()
    spelt_T = _characters_spelt(text, token_ids, token_bytes)
    ends = [bisect_left(spelt_T, step.end) + 1 for step in steps[:-1]]
    return tuple(
        StepReward(end=end, reward=reward) for end, reward in zip([*ends, len(token_ids)], rewards, strict=True)
    )


def _characters_spelt(text: str, token_ids: TokenIds, token_bytes: TokenBytes) -> list[int]:
    """[T] characters of the text that are whole once each token is there: a character of several bytes may come in
    parts. Bytes that are no text are the character U+FFFD, as in every decoder."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    # A model may have more tokens than its tokenizer: these stand for nothing.
    spelt = (token_bytes[token_id] if token_id < len(token_bytes) else b"" for token_id in token_ids.tolist())
    parts = [decoder.decode(data) for data in spelt]
    whole = "".join(parts)  # it may have more: what ended it, and the part of a last character
    # SentencePiece leaves out the blank that its first token begins with.
    left_out = int(not whole.startswith(text) and whole.startswith(" "))
    if not whole.startswith(text, left_out):
        raise ValueError("its tokens do not spell its text, so that nobody knows where its steps end")
    spelt_T, total = [], -left_out
    for part in parts:
        total += len(part)
        spelt_T.append(total)
    return spelt_T


LoadTokenBytes = Callable[[], TokenBytes]
"""Reads them where they are needed: in the process of a reward worker."""
