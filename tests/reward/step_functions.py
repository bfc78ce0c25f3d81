"""Functions that score steps, for tests: right ones, and ones that do what they must not."""

import math
import time
from collections.abc import Sequence

from reward.functions import batched
from reward.types import RewardInput


def length_of_steps(item: RewardInput) -> object:
    """The length of each step; "hang", "raise", "short", "nan" and "number" do what they say."""
    if item.completion == "hang":
        time.sleep(1000)
    if item.completion == "raise":
        raise ValueError("no")
    if item.completion == "short":
        return []
    if item.completion == "nan":
        return [math.nan]
    if item.completion == "number":
        return 1.0
    return [len(step) for step in item.steps]


async def awaited_lengths(item: RewardInput) -> list[float]:
    return [float(len(step)) for step in item.steps]


@batched
def lengths_of_all(items: Sequence[RewardInput]) -> list[list[float]]:
    return [[float(len(step)) for step in item.steps] for item in items]


def right_steps(item: RewardInput) -> list[float]:
    """1 for each step that is the expected answer, else 0: for a model that says no more than answers."""
    return [float(step == item.ground_truth) for step in item.steps]
