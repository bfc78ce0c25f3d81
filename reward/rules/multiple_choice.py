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


def _check_row(item: RewardInput, options: str = "choices", zero_based: bool = True) -> None:
    _truth(item, _options(item, options), zero_based)


@register("multiple_choice", check_row=_check_row)
def multiple_choice(item: RewardInput, options: str = "choices", zero_based: bool = True) -> ExplainedScore:
    """1 when the completion chooses the right option, else 0, also when it chooses none, or several.

    `options` is the column with the options: a list of texts (their labels are A, B, C ...), `{text: [...], label:
    [...]}`, or `{A: text, ...}`; rows may have none, then a choice is a letter. The ground truth is a label, the text
    of an option, or its place, which counts from 0 (`zero_based`) or from 1.

    The choice is read from what is marked as the answer, else from the whole text: "B", "(b)", "B. Paris", "option B"
    or the text of an option; without any of these, the last label in brackets.

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
    if led is not None:
        label, rest = _label(led[1] or led[2], options), text[led.end() :]
        others = [other for other, option in options.items() if other != label and option]
        if any(_words(options[other]) == _words(rest) for other in others) or _begins_with_label(rest, labels):
            return None
        return label
    bracketed = [found for found in _BRACKETED.findall(text) if _label(found, options) is not None]
    return _label(bracketed[-1], options) if bracketed else None


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
