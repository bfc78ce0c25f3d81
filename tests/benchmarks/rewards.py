"""A reward that costs nothing and differs between any two completions: for benchmarks, in which learning is not what is
looked at."""

from reward.types import RewardInput


def share_of_vowels(text: str) -> float:
    """Of the characters of a text."""
    return sum(letter in "aeiou" for letter in text.lower()) / max(1, len(text))


def vowels(item: RewardInput) -> float:
    """`share_of_vowels` of a completion."""
    return share_of_vowels(item.completion)
