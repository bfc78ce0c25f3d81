"""Rewards on the length of a completion, in tokens (the end-of-sequence token counts)."""

from reward.functions import register
from reward.types import RewardInput


def _check_length(target_tokens: int, scale_tokens: int | None = None) -> None:
    if target_tokens < 1:
        raise ValueError(f"target_tokens has to be at least 1, got {target_tokens}")
    if scale_tokens is not None and scale_tokens < 1:
        raise ValueError(f"scale_tokens has to be at least 1, got {scale_tokens}")


@register("length", check=_check_length)
def length(item: RewardInput, target_tokens: int, scale_tokens: int | None = None) -> float:
    """1 at `target_tokens`, falling linearly to 0 at `scale_tokens` away from it (default: `target_tokens`)."""
    distance = abs(len(item.token_ids) - target_tokens)
    return max(0.0, 1.0 - distance / (scale_tokens or target_tokens))


def _check_length_penalty(max_tokens: int | None = None) -> None:
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"max_tokens has to be at least 1, got {max_tokens}")


@register("length_penalty", check=_check_length_penalty)
def length_penalty(item: RewardInput, max_tokens: int | None = None) -> float:
    """-L / max_tokens, in [-1, 0]. `max_tokens` None takes the sampling's own."""
    return -min(1.0, len(item.token_ids) / _longest(item, max_tokens))


def _check_overlong(buffer_tokens: int, max_tokens: int | None = None) -> None:
    if buffer_tokens < 1:
        raise ValueError(f"buffer_tokens has to be at least 1, got {buffer_tokens}")
    if max_tokens is not None and buffer_tokens > max_tokens:
        raise ValueError(f"buffer_tokens is {buffer_tokens}, more than max_tokens = {max_tokens}")


@register("overlong", check=_check_overlong)
def overlong(item: RewardInput, buffer_tokens: int, max_tokens: int | None = None) -> float:
    """Soft overlong punishment (DAPO, arXiv 2503.14476, eq. 13), with L_max `max_tokens` and L_cache `buffer_tokens`.

        0                               L <= L_max - L_cache
        ((L_max - L_cache) - L)/L_cache L_max - L_cache < L <= L_max
        -1                              L > L_max

    `max_tokens` None takes the sampling's own.
    """
    longest = _longest(item, max_tokens)
    allowed = longest - buffer_tokens
    num_tokens = len(item.token_ids)
    if num_tokens <= allowed:
        return 0.0
    if num_tokens <= longest:
        return (allowed - num_tokens) / buffer_tokens
    return -1.0


def _longest(item: RewardInput, max_tokens: int | None) -> int:
    longest = max_tokens if max_tokens is not None else item.max_tokens
    if longest is None:
        raise ValueError("max_tokens is not known here; give it in the function's params")
    return longest
