"""Reward for the requested format: one block of thought, then one block of answer, each in its tags."""

import re
from functools import lru_cache

from reward.functions import register
from reward.types import RewardInput


def _check_format(think_tag: str | None = "think", answer_tag: str = "answer", prefilled: bool = False) -> None:
    for tag in (think_tag, answer_tag):
        if tag is not None and re.fullmatch(r"[A-Za-z][\w-]*", tag) is None:
            raise ValueError(f"a tag is a word such as 'think', got {tag!r}")
    if prefilled and think_tag is None:
        raise ValueError("prefilled is true, but think_tag is null: there is no tag that the prompt could have opened")


@register("format", check=_check_format)
def response_format(
    item: RewardInput, think_tag: str | None = "think", answer_tag: str = "answer", prefilled: bool = False
) -> float:
    """1 when the completion is `<think>...</think><answer>...</answer>`, white space around the blocks aside, else 0.

    Each tag comes exactly once, and the answer is not empty. `think_tag` None asks for the answer alone. `prefilled`
    says that the prompt ends with the opening think tag, so that the completion starts inside.
    """
    # Counted before the pattern is tried: then at most one split is possible and matching takes linear time.
    for tag in (think_tag, answer_tag):
        if tag is None:
            continue
        opened = 0 if prefilled and tag == think_tag else 1
        if item.completion.count(f"<{tag}>") != opened or item.completion.count(f"</{tag}>") != 1:
            return 0.0
    return float(_pattern(think_tag, answer_tag, prefilled).fullmatch(item.completion) is not None)


@lru_cache(maxsize=16)
def _pattern(think_tag: str | None, answer_tag: str, prefilled: bool) -> re.Pattern[str]:
    think = ""
    if think_tag is not None:
        opening = "" if prefilled else rf"<{think_tag}>"
        think = rf"{opening}.*</{think_tag}>\s*"
    return re.compile(rf"\s*{think}<{answer_tag}>(?=\s*\S).*\S\s*</{answer_tag}>\s*", re.DOTALL)
