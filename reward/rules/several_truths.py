"""Rewards for short answers in words, of which several may be right: as SQuAD compares them (Rajpurkar et al. 2016,
arXiv 1606.05250), without case, punctuation, articles and extra white space."""

import string
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from reward.components import column_value
from reward.functions import register
from reward.rules.final_text import final_text
from reward.types import ExplainedScore, RewardInput

_ARTICLES = frozenset({"a", "an", "the"})
_KEYS_WITH_TRUTHS = ("value", "text", "answer", "aliases", "normalized_aliases")
"""Of a mapping, as SQuAD ({text, answer_start}) and TriviaQA ({value, aliases, ...}) have it."""


def _check_row(item: RewardInput, aliases: str | None = None, **_others: object) -> None:
    truths_of(item, aliases)


@register("text_match", check_row=_check_row)
def text_match(item: RewardInput, aliases: str | None = None, contains: bool = False) -> float:
    """1 when the answer is one of the truths, as SQuAD compares them, else 0.

    Truths are the ground truth and what column `aliases` holds: a text, a list, or SQuAD's or TriviaQA's mapping. With
    `contains` it is enough that a truth stands in the answer, word by word.

    Raises:
        ValueError: the row has no truth.
    """
    answer = words_of(final_text(item.completion))
    truths = [words_of(truth) for truth in truths_of(item, aliases)]
    if contains:
        return float(any(_stands_in(truth, answer) for truth in truths))
    return float(answer in truths)


@register("token_f1", check_row=_check_row)
def token_f1(item: RewardInput, aliases: str | None = None) -> ExplainedScore:
    """The F1 of the answer's words against those of the truth that is nearest to it, in [0, 1].

    Truths are read as by `text_match`. Without a mark the whole completion is the answer, so that words around it count
    against it.

    Raises:
        ValueError: the row has no truth.
    """
    answer = words_of(final_text(item.completion))
    scores = {truth: f1(answer, words_of(truth)) for truth in truths_of(item, aliases)}
    nearest = max(scores, key=lambda truth: scores[truth])
    return ExplainedScore(scores[nearest], f"nearest to {nearest[:60]!r}")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation (of any script) and articles; as they stand where nothing
    would be left, since the grade "A" is not the same as no answer."""
    kept = "".join(c for c in text.lower() if c not in string.punctuation and unicodedata.category(c)[0] != "P")
    return [word for word in kept.split() if word not in _ARTICLES] or text.lower().split()


def f1(answer: list[str], truth: list[str]) -> float:
    """Harmonic mean of the shares of words that both have: 2 c / (|answer| + |truth|), c counted with repetition."""
    if not answer or not truth:
        return float(answer == truth)
    return 2 * (Counter(answer) & Counter(truth)).total() / (len(answer) + len(truth))


def truths_of(item: RewardInput, aliases: str | None) -> list[str]:
    """The ground truth, then what the column `aliases` holds, each once. Raises ValueError for none."""
    own = [item.ground_truth] if item.ground_truth is not None else []
    found = [] if aliases is None else list(_texts(column_value(item.row, aliases)))
    truths = [truth for truth in dict.fromkeys([*own, *found]) if truth.strip()]
    if not truths:
        where = "" if aliases is None else f" and none in column {aliases!r}"
        raise ValueError(f"it needs a truth, and the row has no ground truth{where}")
    return truths


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, Mapping):
        for key in _KEYS_WITH_TRUTHS:
            yield from _texts(value.get(key))


def _stands_in(truth: list[str], answer: list[str]) -> bool:
    length = len(truth)
    return length > 0 and any(answer[start : start + length] == truth for start in range(len(answer) - length + 1))
