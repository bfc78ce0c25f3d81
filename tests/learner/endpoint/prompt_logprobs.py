"""What a teacher's server says of tokens."""

import json
from collections.abc import Sequence
from typing import Any

from tests.rollout.endpoint.scripted_server import Reply


def scored(token_ids: Sequence[int], logprobs: Sequence[float], texts: Sequence[str] | None = None) -> Reply:
    """As vLLM answers to `prompt_logprobs: 0`: nothing for the first token, `logprobs` for the others."""
    said = texts or [f"<{token}>" for token in token_ids]
    entries: list[Any] = [None]
    for token, logprob, text in zip(token_ids[1:], logprobs, said[1:], strict=True):
        entries.append({str(token): {"logprob": logprob, "rank": 1, "decoded_token": text}})
    choice = {"index": 0, "text": "x", "finish_reason": "length", "logprobs": None, "prompt_logprobs": entries}
    return 200, {}, json.dumps({"object": "text_completion", "model": "m", "choices": [choice]})
