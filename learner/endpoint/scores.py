"""What a vLLM server is asked about a completion, and what its answer means.

`POST {base_url}/completions` with the tokens of prompt and completion as the prompt, and `prompt_logprobs: 0`: the
answer has, for each token but the first, an object with the token's number and its log-probability under the model's
raw logits, at temperature 1 (vLLM 0.32, `entrypoints/openai/completion/protocol.py`). One token more is sampled, as the
server asks for no fewer, and is not looked at.

Dimension: T tokens of one completion.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rollout.endpoint.client import EndpointClient, EndpointError
from rollout.types import Logprobs, read_only

_ROUNDING = 1e-3
"""A log-probability may be above 0 by as much (nats)."""


async def token_logprobs(
    client: EndpointClient, model: str, prompt_ids: Sequence[int], completion_ids: Sequence[int]
) -> Logprobs:
    """[T] float32 log-probabilities (nats) of the completion's tokens behind the prompt.

    Errors: `EndpointError`, also for an answer that is not about these tokens.
    """
    entries = await _prompt_logprobs(client, model, [*prompt_ids, *completion_ids])
    asked = [int(token) for token in completion_ids]
    return read_only(
        [_logprob(entry, token) for entry, token in zip(entries[len(prompt_ids) :], asked, strict=True)], np.float32
    )


async def token_texts(client: EndpointClient, model: str, token_ids: Sequence[int]) -> list[str | None]:
    """[T - 1] what each token but the first is to the server; None where it does not say. Errors: `EndpointError`."""
    entries = (await _prompt_logprobs(client, model, token_ids))[1:]
    found: list[str | None] = []
    for entry, token in zip(entries, token_ids[1:], strict=True):
        _logprob(entry, token)
        text = entry[str(token)].get("decoded_token")
        found.append(text if isinstance(text, str) else None)
    return found


async def _prompt_logprobs(client: EndpointClient, model: str, token_ids: Sequence[int]) -> list[Any]:
    """An entry for each token; the first has none."""
    body = {
        "model": model,
        "prompt": [int(token) for token in token_ids],
        "max_tokens": 1,
        "temperature": 0.0,
        "prompt_logprobs": 0,
    }
    answer = await client.post("/completions", body)
    try:
        entries = answer["choices"][0]["prompt_logprobs"]
    except (KeyError, IndexError, TypeError):
        entries = None
    if not isinstance(entries, list):
        raise EndpointError(f"{_shown(answer)} has no choices[0].prompt_logprobs; a server of vLLM gives them")
    if len(entries) != len(token_ids):
        raise EndpointError(f"the server gave {len(entries)} log-probabilities for {len(token_ids)} tokens")
    return entries


def _logprob(entry: Any, token: int) -> float:
    """Errors: `EndpointError` where it is not a finite log-probability of this token."""
    value = entry.get(str(token)) if isinstance(entry, dict) else None
    logprob = value.get("logprob") if isinstance(value, dict) else None
    if isinstance(logprob, bool) or not isinstance(logprob, int | float):
        raise EndpointError(f"the server gave {_shown(entry)} where a log-probability of token {token} was asked for")
    if not math.isfinite(logprob) or logprob > _ROUNDING:
        raise EndpointError(f"the server gave {logprob} as the log-probability of token {token}")
    return min(0.0, float(logprob))


def _shown(value: Any) -> str:
    return repr(value)[:120]
