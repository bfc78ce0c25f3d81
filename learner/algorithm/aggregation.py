"""From values of tokens to one loss: the weight of each token, with the denominators of the whole optimizer step.

Every loss here is sum over tokens of weight times value, so any split of a step into micro-batches and ranks adds up to
the same loss. A completion without a trained token counts nowhere.

Dimension: S completions of an optimizer step.
"""

from collections.abc import Sequence

from learner.objective import AggregationConfig


def token_weights(
    num_tokens_S: Sequence[int], prompts_S: Sequence[str], config: AggregationConfig, *, max_tokens: int
) -> tuple[float, ...]:
    """[S] weight of each trained token of each completion; 0 for a completion without.

    `num_tokens_S`: trained tokens; `prompts_S`: id of the group; `max_tokens`: longest completion that was allowed,
    which `token_sum` divides by where it is given no other constant.
    """
    num_completions = sum(num_tokens > 0 for num_tokens in num_tokens_S)
    if not num_completions:
        return (0.0,) * len(num_tokens_S)
    if config.kind == "sequence_mean":
        return tuple(completion_token_weight(n, num_completions) if n else 0.0 for n in num_tokens_S)
    if config.kind == "prompt_mean":
        of_prompt: dict[str, int] = {}
        for prompt, num_tokens in zip(prompts_S, num_tokens_S, strict=True):
            of_prompt[prompt] = of_prompt.get(prompt, 0) + num_tokens
        num_prompts = sum(total > 0 for total in of_prompt.values())
        return tuple(
            1.0 / (of_prompt[prompt] * num_prompts) if num_tokens else 0.0
            for prompt, num_tokens in zip(prompts_S, num_tokens_S, strict=True)
        )
    denominator = {
        "token_mean": sum(num_tokens_S),
        "token_sum": num_completions * (config.max_tokens or max_tokens),
        "sequence_sum": num_completions,
    }[config.kind]
    return tuple(1.0 / denominator if num_tokens else 0.0 for num_tokens in num_tokens_S)


def completion_token_weight(num_trained_tokens: int, num_completions: int) -> float:
    """Weight of each trained token of one completion in `sequence_mean`: 1 / (L_i * N).

    N (`num_completions`) counts the completions of the *whole* optimizer step with at least one trained token, over
    all groups, ranks and micro-batches.
    """
    assert num_trained_tokens > 0, "a completion without trained tokens has no weight"
    assert num_completions > 0
    return 1.0 / (num_trained_tokens * num_completions)
