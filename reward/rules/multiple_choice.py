"""Reward for a question with options: which one does the completion choose?"""

import re
import string
from collections.abc import Mapping
from typing import Any

from reward.components import column_value
from reward.functions import register
from reward.rules.final_text import final_text, plain
from reward.types import ExplainedScore, RewardInput

_LEAD = r"(?:(?:option|choice|answer|letter)\s{1,4})?"
_BRACKETED = re.compile(r"[(\[]\s?(\w{1,3})\s?[)\]]")
_MAX_DENIAL_CHARS = 80
# "not (A)", "isn't option (A)", "not (A) or (B)"; "neither (A), (B) nor (C)", "we rule out (A), (B) and (D)".
_DENIED_BEFORE = re.compile(
    r"(?:(?:\b(?:not|nor|never|cannot|rather\s+than|instead\s+of)|n['’]t)"
    r"(?:\s+(?:be|is|the|option|choice|answer|think|believe|choose|pick|select|either|right|correct))*\s*"
    r"(?:[(\[]\s?\w{1,3}\s?[)\]]\s*n?or\s+)*"
    r"|\b(?:neither|rul(?:e|es|ed|ing)\s+out|eliminat(?:e|es|ed|ing)|exclud(?:e|es|ed|ing))(?:\s+(?:options?|choices?))?\s*"
    r"(?:[(\[]\s?\w{1,3}\s?[)\]]\s*,?\s*(?:(?:n?or|and)\s+(?:is\s+)?)?)*)$",
    re.IGNORECASE,
)
# Not "is false" and not every "is not": where the question is for the one that is not so, that is the choice.
_DENIED_BEHIND = re.compile(
    r"\s*(?:(?:is|are|was)\s+(?:also\s+|clearly\s+|obviously\s+|definitely\s+|therefore\s+|both\s+)?"
    r"(?:wrong|incorrect|ruled\s+out|eliminated|excluded|not\s+(?:the\s+|an?\s+)?{right})"
    r"|(?:is|are|was)n['’]t\s+(?:the\s+|an?\s+)?{right}|(?:cannot|can['’]t|can\s+not)\s+be\s+(?:the\s+)?{right})\b".replace(
        "{right}", r"(?:right|correct|possible|(?:(?:right|correct|best)\s+)?(?:answer|option|choice|one))"
    ),
    re.IGNORECASE,
)


def _check_row(item: RewardInput, options: str = "choices", zero_based: bool = True) -> None:
    _truth(item, _options(item, options), zero_based)


@register("multiple_choice", check_row=_check_row)
def multiple_choice(item: RewardInput, options: str = "choices", zero_based: bool = True) -> ExplainedScore:
    """1 when the completion chooses the right option, else 0, also when it chooses none, or several.

    `options` is the column with the options: a list of texts (their labels are A, B, C ...), `{text: [...], label:
    [...]}`, or `{A: text, ...}`; rows may have none, then a choice is a letter. The ground truth is a label, the text
    of an option, or its place, which counts from 0 (`zero_based`) or from 1.

    The choice is read from what is marked as the answer, else from the whole text: "B", "(b)", "B. Paris", "option B"
    or the text of an option; without any of these, the last label in brackets that it does not call wrong.

    Raises:
        ValueError: a ground truth that is no option, or options in another form.
    """
    by_label = _options(item, options)
    truth = _truth(item, by_label, zero_based)
    chosen = choice_in(final_text(item.completion), by_label)
    if chosen is None:
        return ExplainedScore(0.0, "no one option is chosen")
    return ExplainedScore(float(chosen == truth), f"chooses {chosen}")


def chosen_option(item: RewardInput, options: str = "choices", **_others: object) -> str | None:
    """The label of the option that a completion chooses; None for none, and for a row whose options cannot be read."""
    try:
        return choice_in(final_text(item.completion), _options(item, options))
    except ValueError:
        return None


def choice_in(text: str, options: Mapping[str, str]) -> str | None:
    """The label of the option that a text chooses; None for none or several. `options` is label -> text."""
    text = plain(text)
    labels = "|".join(re.escape(label) for label in options)
    whole = re.fullmatch(rf"{_LEAD}[(\[]?({labels})[)\]]?[.:,;]?", text, re.IGNORECASE)
    if whole is not None:
        return _label(whole[1], options)
    named = [label for label, option in options.items() if option and _words(option) == _words(text)]
    if named:
        return named[0] if len(named) == 1 else None
    # "B. Paris", "(B) Paris", "B) because": the label is a capital as it stands, since "a cat" begins with a word.
    led = re.match(rf"{_LEAD}(?:[(\[]({labels})[)\]]|({labels})(?:[.:)\]]|\s[-–—](?=\s)))\s*", text)
    if led is not None and _DENIED_BEHIND.match(text, led.end()) is None:
        label, rest = _label(led[1] or led[2], options), text[led.end() :]
        others = [other for other, option in options.items() if other != label and option]
        if any(_words(options[other]) == _words(rest) for other in others) or _begins_with_label(rest, labels):
            return None
        return label
    return _last_bracketed(text, options)


def _last_bracketed(text: str, options: Mapping[str, str]) -> str | None:
    """The label that stands last in brackets, those aside that the text takes back."""
    chosen = None
    for found in _BRACKETED.finditer(text):
        label = _label(found[1], options)
        before = text[max(found.start() - _MAX_DENIAL_CHARS, 0) : found.start()]
        if label is not None and not (_DENIED_BEFORE.search(before) or _DENIED_BEHIND.match(text, found.end())):
            chosen = label
    return chosen


def _begins_with_label(text: str, labels: str) -> bool:
    return re.match(rf"(?:(?:and|or|,|/)\s*)?[(\[]?(?:{labels})(?:[)\].:,]|$)", text) is not None


def _label(text: str, options: Mapping[str, str]) -> str | None:
    return next((label for label in options if label.casefold() == text.casefold()), None)


def _words(text: str) -> list[str]:
    return plain(text).casefold().strip(string.punctuation + " ").split()


def _options(item: RewardInput, column: str) -> dict[str, str]:
    """Label -> text; the letters of the alphabet without texts where the row has no options."""
    found: Any = column_value(item.row, column)
    if found is None:
        return dict.fromkeys(string.ascii_uppercase, "")
    if isinstance(found, Mapping) and isinstance(found.get("text"), (list, tuple)):
        texts = list(found["text"])
        labels = list(found.get("label") or string.ascii_uppercase[: len(texts)])
    elif isinstance(found, Mapping):
        labels, texts = list(found), list(found.values())
    elif isinstance(found, (list, tuple)):
        labels, texts = list(string.ascii_uppercase[: len(found)]), list(found)
    else:
        raise ValueError(f"column {column!r} holds {type(found).__name__}, expected a list of options or a mapping")
    if not texts or len(labels) != len(texts) or any(isinstance(text, (dict, list)) for text in texts):
        raise ValueError(f"column {column!r} holds {len(texts)} options and {len(labels)} labels, or no plain texts")
    return {str(label): str(text) for label, text in zip(labels, texts, strict=True)}


def _truth(item: RewardInput, options: Mapping[str, str], zero_based: bool) -> str:
    if item.ground_truth is None or not item.ground_truth.strip():
        raise ValueError("it needs a ground truth, and the row has none")
    truth = item.ground_truth.strip()
    label = _label(truth.strip("()[]. "), options)
    if label is not None:
        return label
    named = [label for label, option in options.items() if option and _words(option) == _words(truth)]
    if len(named) == 1:
        return named[0]
    place = int(truth) - (not zero_based) if truth.isascii() and truth.isdigit() else -1
    if 0 <= place < len(options) and any(options.values()):
        return list(options)[place]
    known = ", ".join(f"{label} {option[:40]!r}" for label, option in options.items() if option) or "letters"
    raise ValueError(f"the ground truth {truth[:60]!r} is none of its options ({known})")
