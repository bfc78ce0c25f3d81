"""Asks a server what is not in the journal, and notes what it says."""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reward.judging.journal import Journal
from reward.types import ComponentAnswer, RewardOutcome, ServerCost, one_line
from rollout.endpoint.client import Effort, EndpointClient, EndpointError

_BYTES_OF_A_TOKEN = 3
"""Fewer than text has in any language that tokenizers are made for: an estimate on the safe side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a server said of a group."""

    answers: tuple[ComponentAnswer, ...]
    """[G]"""
    cost: ServerCost


@dataclass(slots=True, kw_only=True)
class Bill:
    """What the requests of a group took, while they are made."""

    until_s: float
    """Of the loop's clock: the group's deadline."""
    cost: ServerCost = field(default_factory=ServerCost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, and how its answer is read."""

    path: str
    body: Mapping[str, Any]
    tokens: int
    """That it may take, estimated."""
    read: Callable[[Any], dict[str, Any]]
    """From the answer what is noted of it. Errors: `EndpointError` for what is no answer."""


def estimated_tokens(num_bytes: int) -> int:
    """Of a text in UTF-8."""
    return num_bytes // _BYTES_OF_A_TOKEN + 1


class Asker:
    """One server, asked for one component. To be used from one event loop."""

    def __init__(self, client: EndpointClient, journal: Journal, *, component: str, address: str) -> None:
        self._client = client
        self._journal = journal
        self._component = component
        self._address = address
        self._running: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def ask(self, request: Request, bill: Bill) -> dict[str, Any]:
        """What `request.read` made of the answer, now or before.

        Errors: `EndpointError`; `RewardError` where the answer cannot be noted.
        """
        key = self._key(request)
        running = self._running.get(key)
        if running is None:
            known = self._journal.find(key)
            if known is not None:
                bill.cost += ServerCost(cached=1)
                return dict(known["answer"])
            running = asyncio.ensure_future(self._send(key, request, bill))
            self._running[key] = running
            running.add_done_callback(lambda _: self._running.pop(key, None))
        else:
            bill.cost += ServerCost(cached=1)
        return await asyncio.shield(running)

    async def _send(self, key: str, request: Request, bill: Bill) -> dict[str, Any]:
        effort, started_s, usage = Effort(), time.monotonic(), (0, 0)
        answer: Any = None
        try:
            answer = await self._client.post_until(
                request.path,
                request.body,
                until_s=bill.until_s,
                tokens=request.tokens,
                took=_tokens_of,
                effort=effort,
            )
            usage = _usage_of(answer)
            kept = request.read(answer)
        finally:
            took_s = time.monotonic() - started_s
            bill.cost += ServerCost(
                calls=int(answer is not None),
                attempts=effort.num_attempts,
                prompt_tokens=usage[0],
                completion_tokens=usage[1],
                waited_s=effort.waited_s,
                asked_s=max(0.0, took_s - effort.waited_s),
            )
        self._journal.add(
            key,
            {
                "at_s": round(time.time(), 3),
                "component": self._component,
                "prompt_tokens": usage[0],
                "completion_tokens": usage[1],
                "waited_s": round(effort.waited_s, 3),
                "asked_s": round(max(0.0, took_s - effort.waited_s), 3),
                "answer": kept,
            },
        )
        return kept

    def _key(self, request: Request) -> str:
        asked = json.dumps([self._address, request.path, request.body], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()


def failure(component: str, error: EndpointError) -> ComponentAnswer:
    """The outcome of a request that came to nothing."""
    outcome = RewardOutcome.TIMEOUT if error.is_late else RewardOutcome.ERROR
    return ComponentAnswer(outcome=outcome, value=None, detail=one_line(f"{component}: {error}"))


def invalid(component: str, why: str) -> ComponentAnswer:
    """The outcome of an answer that says nothing."""
    return ComponentAnswer(outcome=RewardOutcome.INVALID, value=None, detail=one_line(f"{component}: {why}"))


def _usage_of(answer: Any) -> tuple[int, int]:
    """(tokens of the prompt, of the reply), where the server says."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    found = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    counts = [one if isinstance(one, int) and not isinstance(one, bool) and one >= 0 else 0 for one in found]
    return (counts[0], counts[1]) if counts else (0, 0)


def _tokens_of(answer: Any) -> int | None:
    return sum(_usage_of(answer)) or None
