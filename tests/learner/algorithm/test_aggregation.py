"""Weights of tokens by hand: completions of 1, 3, 0 and 2 trained tokens, the first two of prompt a."""

import pytest

from learner.algorithm.aggregation import completion_token_weight, token_weights
from learner.objective import AggregationConfig

LENGTHS = [1, 3, 0, 2]
PROMPTS = ["a", "a", "b", "c"]


def weights(kind: str, lengths: list[int] = LENGTHS, max_tokens: int | None = None) -> list[float]:
    config = AggregationConfig.model_validate({"kind": kind, "max_tokens": max_tokens})
    return list(token_weights(lengths, PROMPTS, config, max_tokens=10))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # three completions have tokens; the third has none and counts nowhere
        ("sequence_mean", [1 / 3, 1 / 9, 0, 1 / 6]),  # 1 / (L_i * 3)
        ("token_mean", [1 / 6, 1 / 6, 0, 1 / 6]),  # 1 + 3 + 2 tokens
        ("token_sum", [1 / 30, 1 / 30, 0, 1 / 30]),  # 3 completions of at most 10
        ("sequence_sum", [1 / 3, 1 / 3, 0, 1 / 3]),
        ("prompt_mean", [1 / 8, 1 / 8, 0, 1 / 4]),  # a has 4 tokens, c has 2; b has none, so two prompts
    ],
)
def test_weights_by_hand(kind: str, expected: list[float]) -> None:
    assert weights(kind) == pytest.approx(expected, rel=1e-15)
    assert weights(kind)[2] == 0.0


def test_a_prompt_of_one_token_is_a_prompt() -> None:
    # a has one token and c has two: two prompts
    assert weights("prompt_mean", [1, 0, 0, 2]) == pytest.approx([1 / 2, 0, 0, 1 / 4])


def test_token_sum_has_a_constant_of_its_own() -> None:
    assert weights("token_sum", max_tokens=5) == pytest.approx([1 / 15, 1 / 15, 0, 1 / 15])


@pytest.mark.parametrize("kind", ["sequence_mean", "token_mean", "prompt_mean"])
def test_means_have_weights_that_add_up_to_one(kind: str) -> None:
    total = sum(weight * length for weight, length in zip(weights(kind), LENGTHS, strict=True))
    assert total == pytest.approx(1.0, rel=1e-15)


@pytest.mark.parametrize("kind", ["sequence_mean", "token_mean", "token_sum", "sequence_sum", "prompt_mean"])
def test_without_a_trained_token_all_weights_are_zero(kind: str) -> None:
    assert weights(kind, [0, 0, 0, 0]) == [0.0] * 4
    assert token_weights([], [], AggregationConfig.model_validate({"kind": kind}), max_tokens=10) == ()


def test_the_weight_of_a_completion_is_shared_by_its_tokens() -> None:
    assert completion_token_weight(4, 2) == 0.125
    for wrong in ((0, 2), (4, 0)):
        with pytest.raises(AssertionError):
            completion_token_weight(*wrong)


def test_every_completion_is_of_a_prompt() -> None:
    with pytest.raises(ValueError, match="zip"):
        token_weights([1, 2], ["a"], AggregationConfig(kind="prompt_mean"), max_tokens=10)
