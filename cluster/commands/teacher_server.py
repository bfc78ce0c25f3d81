"""Whether the server of a teacher can score what the policy samples, asked before anything starts.

What can be known over HTTP: that the server has the model and gives log-probabilities of given tokens, that it reads
sequences as long as the run's, that it has the policy's highest token, that a text which covers much becomes the same
tokens (`/tokenize` of vLLM, where it is open), and that tokens spread over the vocabulary have the same texts. That all
others do, or which weights it has, cannot be.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

from cluster.config import RunConfig
from learner.endpoint.client import teacher_client
from learner.endpoint.scores import token_texts
from learner.teacher import TeacherConfig, api_key_of
from learner.types import FoundTeacher
from rollout.endpoint.client import EndpointClient, EndpointError
from rollout.errors import ModelError

PROBE_TEXT = (
    'The 12 quick brown foxes (3.75% of 320) didn\'t jump: \\frac{a}{b} = x^2 + y_1;\n\tif (n != 0) { return "ok"; }\n'
    "\u00c4rger \u00e9t\u00e9 \u4f60\u597d \u043c\u0438\u0440 \u0645\u0631\u062d\u0628\u0627 \U0001f600"
)
NUM_PROBE_TOKENS = 64
"""Of the vocabulary, spread evenly over it."""


def find_server(config: RunConfig, teacher: TeacherConfig, tokenizer: Any) -> FoundTeacher:
    """The teacher's name on its server. `tokenizer` is the policy's.

    Errors: `ModelError`; `ConfigError` without the key.
    """
    return asyncio.run(_find(config, teacher, tokenizer))


async def _find(config: RunConfig, teacher: TeacherConfig, tokenizer: Any) -> FoundTeacher:
    assert teacher.base_url is not None
    client = teacher_client(teacher.base_url, teacher.endpoint, api_key_of(teacher.endpoint))
    try:
        name = await _check_model(client, teacher, config.model.max_context_tokens)
        await _check_text(client, name, tokenizer)
        await _check_tokens(client, name, tokenizer)
    except EndpointError as error:
        raise ModelError(f"learner.teacher.base_url is {teacher.base_url!r}, which is of no use: {error}") from error
    finally:
        await client.close()
    digest = hashlib.sha256(f"served\0{name}".encode()).hexdigest()
    return FoundTeacher(served_model=name, fingerprint=digest)


async def _check_model(client: EndpointClient, teacher: TeacherConfig, longest: int) -> str:
    """Its name. Errors: `EndpointError`."""
    answer = await client.get("/models")
    cards = answer.get("data") if isinstance(answer, dict) else None
    cards = [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
    names = [str(card.get("id")) for card in cards]
    wanted = teacher.endpoint.model
    if wanted is None and len(names) != 1:
        raise EndpointError(f"it has {len(names)} models, {names}: set learner.teacher.endpoint.model to one of them")
    name = names[0] if wanted is None else wanted
    if name not in names:
        raise EndpointError(f"it has {names}, and learner.teacher.endpoint.model is {name!r}")
    limit = cards[names.index(name)].get("max_model_len")
    # One more than the run's longest: a token is sampled behind what is scored.
    if isinstance(limit, int) and limit < longest + 1:
        raise EndpointError(
            f"{name} reads {limit} tokens at most there, and model.max_context_tokens is {longest}: it must read one "
            "more (--max-model-len)"
        )
    return name


async def _check_text(client: EndpointClient, name: str, tokenizer: Any) -> None:
    """Errors: `EndpointError` where the server cuts the text into other tokens."""
    body = {"model": name, "prompt": PROBE_TEXT, "add_special_tokens": False}
    try:
        answer = await client.post("/tokenize", body, beside=True)
    except EndpointError:
        return  # not every server has that door open; tokens are compared one by one in any case
    theirs = answer.get("tokens") if isinstance(answer, dict) else None
    ours = list(tokenizer.encode(PROBE_TEXT, add_special_tokens=False))
    if isinstance(theirs, list) and theirs != ours:
        place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), len(ours))
        raise EndpointError(
            f"its tokenizer is not the policy's: a text of {len(ours)} tokens has {len(theirs)} there, the first that "
            f"differs is number {place}; take a teacher and a model of one family"
        )


async def _check_tokens(client: EndpointClient, name: str, tokenizer: Any) -> None:
    """Errors: `EndpointError` where a token is not there, has another text, or has no log-probability."""
    probe = _probe_tokens(tokenizer)
    theirs = await token_texts(client, name, probe)
    for token, text in zip(probe[1:], theirs, strict=True):
        ours = str(tokenizer.decode([token]))
        if text is None or not _can_be_compared(ours) or not _can_be_compared(text):
            continue
        if ours.strip() != text.strip():  # how a blank before a word is shown differs between tokenizers
            raise EndpointError(
                f"its tokenizer is not the policy's: token {token} is {ours!r} here and {text!r} there; take a teacher "
                "and a model of one family"
            )


def _probe_tokens(tokenizer: Any) -> Sequence[int]:
    """Spread over the vocabulary, its highest one included."""
    highest = max(tokenizer.get_vocab().values())
    spread = [highest * place // NUM_PROBE_TOKENS for place in range(NUM_PROBE_TOKENS + 1)]
    return list(dict.fromkeys(spread))


def _can_be_compared(text: str) -> bool:
    """Parts of characters, and special tokens that a server leaves out of a text, are shown in different ways."""
    return text.isascii() and text.isprintable() and bool(text.strip())
