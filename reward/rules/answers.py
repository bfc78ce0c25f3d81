"""What a completion stands for: its answer, as the record shows it, and its vote, where answers are counted (maj@k).

That depends on what decides whether it is right: the label of an option, a query, a number with its unit. Two
completions with one answer and different rewards are a sign of a function that cannot be trusted, so an answer is never
a number that happens to stand in a program.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reward.code.program import program_of
from reward.config import RewardFunctionConfig
from reward.math.extraction import final_answer
from reward.math.readings import vote_of
from reward.rules.final_text import fenced_text, final_text
from reward.rules.multiple_choice import chosen_option
from reward.rules.quantity import answered_quantity
from reward.rules.several_truths import words_of
from reward.types import RewardInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of a completion.

    Example:
        Answer(text="10 m/s", vote="10 m/s")
    """

    text: str | None
    """None where it gives none."""
    vote: str | None
    """Its normal form; None where it has none but the text of the completion."""


def answer_of(function: RewardFunctionConfig | None, item: RewardInput) -> Answer:
    """What `item` stands for, where `function` decides whether it is right; None is a scoring model."""
    read = _READ.get(function.function) if function is not None else None
    if read is not None and function is not None:
        return read(item, function)
    answer = final_answer(item.completion)
    return Answer(text=answer, vote=None if answer is None else vote_of(answer))


def _whole(_item: RewardInput, _: RewardFunctionConfig) -> Answer:
    return Answer(text=None, vote=None)


def _program(item: RewardInput, _: RewardFunctionConfig) -> Answer:
    program = program_of(item.completion).strip() or None
    return Answer(text=program, vote=program)


def _query(item: RewardInput, _: RewardFunctionConfig) -> Answer:
    query = fenced_text(item.completion, ("", "sql", "sqlite")) or None
    return Answer(text=query, vote=query and " ".join(query.rstrip(";").split()))


def _json(item: RewardInput, _: RewardFunctionConfig) -> Answer:
    text = fenced_text(item.completion, ("", "json")) or None
    try:
        vote = None if text is None else json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        vote = text
    return Answer(text=text, vote=vote)


def _choice(item: RewardInput, function: RewardFunctionConfig) -> Answer:
    label = chosen_option(item, **function.params)
    return Answer(text=label, vote=label)


def _words(item: RewardInput, _: RewardFunctionConfig) -> Answer:
    text = final_text(item.completion) or None
    return Answer(text=text, vote=text and " ".join(words_of(text)))


def _text(item: RewardInput, _: RewardFunctionConfig) -> Answer:
    text = final_text(item.completion) or None
    return Answer(text=text, vote=text)


def _quantity(item: RewardInput, _: RewardFunctionConfig) -> Answer:
    found = answered_quantity(item.completion)
    text = None if found is None else f"{found.value:.9g} {found.unit}".rstrip()
    return Answer(text=text, vote=text)


_READ: Mapping[str, Callable[[RewardInput, RewardFunctionConfig], Answer]] = {
    "code": _program,
    "exact_match": _whole,
    "instructions": _whole,
    "json_schema": _json,
    "multiple_choice": _choice,
    "quantity": _quantity,
    "reasoning_gym": _text,
    "sql": _query,
    "text_match": _words,
    "token_f1": _words,
}
"""Function -> how its answers are read; those of all others are read as `math` reads them."""
