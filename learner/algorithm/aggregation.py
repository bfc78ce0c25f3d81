"""From values of tokens to one loss: the weight of each token, with the denominators of the whole optimizer step.

Every loss here is sum over tokens of weight times value, so any split of a step into micro-batches and ranks adds up to
the same loss. A completion without a trained token counts nowhere.

Dimension: S completions of an optimizer step.
"""

from collections.abc import Sequence

from learner.objective import AggregationConfig


def token_weights(
    num_tokens_S: Sequence[int],
    prompts_S: Sequence[str],
    config: AggregationConfig,
    *,
    max_tokens: int,
    denominator: int | None = None,
) -> tuple[float, ...]:
    """[S] weight of each trained token of each completion; 0 for a completion without.

    `num_tokens_S`: trained tokens; `prompts_S`: id of the group; `max_tokens`: longest completion that was allowed,
    which `token_sum` divides by where it is given no other constant. `denominator`: in place of that of these
    completions (`denominator_of`), which may be a part of an optimizer step.
    """
    if denominator is None:
        denominator = denominator_of(num_tokens_S, prompts_S, config)
    if config.kind == "sequence_mean":
        return tuple(completion_token_weight(n, denominator) if n else 0.0 for n in num_tokens_S)
    if config.kind == "prompt_mean":
        of_prompt: dict[str, int] = {}
        for prompt, num_tokens in zip(prompts_S, num_tokens_S, strict=True):
            of_prompt[prompt] = of_prompt.get(prompt, 0) + num_tokens
        return tuple(
            1.0 / (of_prompt[prompt] * denominator) if num_tokens else 0.0
            for prompt, num_tokens in zip(prompts_S, num_tokens_S, strict=True)
        )
    of_each = (config.max_tokens or max_tokens) if config.kind == "token_sum" else 1
    return tuple(1.0 / (denominator * of_each) if num_tokens else 0.0 for num_tokens in num_tokens_S)


def denominator_of(num_tokens_S: Sequence[int], prompts_S: Sequence[str], config: AggregationConfig) -> int:
    """What the weights of an optimizer step have in common: its tokens, prompts or completions, as `kind` says. The sum
    of those of its parts, where no group is in two of them."""
    if config.kind == "token_mean":
        return sum(num_tokens_S)
    trained = [prompt for prompt, num_tokens in zip(prompts_S, num_tokens_S, strict=True) if num_tokens]
    return len(set(trained) if config.kind == "prompt_mean" else trained)


def completion_token_weight(num_trained_tokens: int, num_completions: int) -> float:
    """Weight of each trained token of one completion in `sequence_mean`: 1 / (L_i * N).

    N (`num_completions`) counts the completions of the *whole* optimizer step with at least one trained token, over
    all groups, ranks and micro-batches.
    """
    assert num_trained_tokens > 0, "a completion without trained tokens has no weight"
    assert num_completions > 0
    return 1.0 / (num_trained_tokens * num_completions)
