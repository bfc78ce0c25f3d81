"""Rewards that compare text: the whole of it, or what a pattern finds."""

import re
from functools import lru_cache
from typing import Literal

from reward.functions import register
from reward.types import RewardInput


def needs_truth(item: RewardInput, **_params: object) -> None:
    """A function's `check_row`: the row has a ground truth."""
    if item.ground_truth is None or not item.ground_truth.strip():
        raise ValueError("it needs a ground truth, and the row has none")


@register("exact_match", check_row=needs_truth)
def exact_match(item: RewardInput, strip: bool = True, ignore_case: bool = False) -> float:
    """1 when the whole completion is the ground truth, else 0.

    `strip` ignores white space at both ends, `ignore_case` the case (Unicode case folding).
    """
    if item.ground_truth is None:
        raise ValueError("exact_match needs a ground truth, and this prompt has none")
    return float(_canonical(item.completion, strip, ignore_case) == _canonical(item.ground_truth, strip, ignore_case))


def _check_regex(pattern: str, group: int | str | None = None, **_others: object) -> None:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern {pattern!r} is no regular expression: {error}") from error
    known = group is None or (group in compiled.groupindex if isinstance(group, str) else 0 <= group <= compiled.groups)
    if not known:
        raise ValueError(f"pattern {pattern!r} has no group {group!r}")


def _check_regex_row(item: RewardInput, group: int | str | None = None, **_others: object) -> None:
    if group is not None:
        needs_truth(item)


@register("regex", check=_check_regex, check_row=_check_regex_row)
def regex(
    item: RewardInput,
    pattern: str,
    mode: Literal["search", "full"] = "search",
    group: int | str | None = None,
    ignore_case: bool = False,
    dotall: bool = False,
) -> float:
    """1 when `pattern` is found anywhere in the completion (`search`) or matches all of it (`full`), else 0.

    With `group`, the text of that group has to be the ground truth too, white space at both ends aside; with `search`
    the last match decides, since a final answer comes last.
    """
    compiled = _compile(pattern, ignore_case, dotall)
    if mode == "full":
        match = compiled.fullmatch(item.completion)
    else:
        match = None
        for found in compiled.finditer(item.completion):
            match = found
    if match is None:
        return 0.0
    if group is None:
        return 1.0
    if item.ground_truth is None:
        raise ValueError("regex with a group needs a ground truth, and this prompt has none")
    return float(
        _canonical(match.group(group) or "", True, ignore_case) == _canonical(item.ground_truth, True, ignore_case)
    )


@lru_cache(maxsize=64)
def _compile(pattern: str, ignore_case: bool, dotall: bool) -> re.Pattern[str]:
    return re.compile(pattern, (re.IGNORECASE if ignore_case else 0) | (re.DOTALL if dotall else 0))


def _canonical(text: str, strip: bool, ignore_case: bool) -> str:
    text = text.strip() if strip else text
    return text.casefold() if ignore_case else text
