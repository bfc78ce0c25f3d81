"""The functions of a reward worker that ask a server: one event loop in a thread of its own, for all groups.

    score(group), in its thread --submit--> loop: requests of all groups, within the limits --> future of answers
                                              |
                                              +-- journal: what was answered before

A request is waiting, not computing: no child process is kept for it, and thousands cost nothing.
"""

import asyncio
import random
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from reward.errors import RewardError
from reward.judging.asking import Asker, Bill, Judged
from reward.judging.config import HttpConfig, JudgeConfig
from reward.judging.http_scores import HttpScores
from reward.judging.journal import Journal
from reward.judging.judge import Judge
from reward.types import ComponentAnswer, RewardInput, RewardOutcome, one_line
from rollout.endpoint.address import key_of_environment
from rollout.endpoint.budget import Budget
from rollout.endpoint.client import EndpointClient, EndpointManners

CLOSE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingSite:
    """What functions that ask a server have to know of where they are."""

    seed: int = 0
    """The run's: the order in which completions are shown follows from it."""
    run_dir: Path | None = None
    """Where answers are noted; None notes them nowhere, and forgets them with the worker."""
    num_workers: int = 1
    """Reward workers that share the limits."""
    api_keys: Mapping[str, str] = field(default_factory=dict)
    """Component -> key; of one without, the environment is asked."""


class AsksServer(Protocol):
    """A reward function that asks a server."""

    async def score(self, items: Sequence[RewardInput], bill: Bill) -> Judged:
        """One answer for each completion."""
        ...


def api_key_of(component: str, config: JudgeConfig | HttpConfig) -> str | None:
    """The key, out of the environment of this process. Errors: `ConfigError` where it is not there."""
    key = f"reward function {component!r}: params.api_key_env"
    return key_of_environment(config.api_key_env, key=key, whose=f"the server of {config.address_key}")


class AskedFunctions:
    """Scores groups by asking servers. Thread-safe."""

    def __init__(self, functions: Mapping[str, JudgeConfig | HttpConfig], worker: str, site: AskingSite) -> None:
        """Component -> params. Nothing is asked yet.

        Errors: `ConfigError` without a key; `RewardError` where the journal cannot be kept.
        """
        self._configs = dict(functions)
        self._keys = {
            name: site.api_keys[name] if name in site.api_keys else api_key_of(name, config)
            for name, config in functions.items()
        }
        self._worker = worker
        self._site = site
        self._journal = Journal(site.run_dir, worker)
        self._functions: dict[str, AsksServer] = {}
        self._clients: list[EndpointClient] = []
        self._is_closed = False
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"{worker}-asking", daemon=True)
        self._thread.start()

    def submit(self, component: str, items: Sequence[RewardInput]) -> "Future[Judged]":
        """A group on its way; the future has its answers by the deadline of the function's limits.

        Errors: `RewardError` when it is closed.
        """
        with self._lock:
            if self._is_closed:
                raise RewardError(f"{self._worker} is closed")
            return asyncio.run_coroutine_threadsafe(self._score(component, items), self._loop)

    def close(self) -> None:
        """Ends what is being asked. Idempotent."""
        with self._lock:
            was_closed, self._is_closed = self._is_closed, True
        if was_closed:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_S)
        self._journal.close()

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(client.close() for client in self._clients), return_exceptions=True)

    async def _score(self, component: str, items: Sequence[RewardInput]) -> Judged:
        loop = asyncio.get_running_loop()
        bill = Bill(until_s=loop.time() + self._configs[component].limits.deadline_s)
        try:
            judged = await self._function(component).score(items, bill)
            if judged.cost.calls:
                await loop.run_in_executor(None, self._journal.sync)
        except RewardError:  # the journal: to go on would ask everything again
            raise
        except Exception as error:  # noqa: BLE001 - boundary: what one group does wrong must not cost the others
            detail = one_line(f"{component} raised {type(error).__name__}: {error}")
            answer = ComponentAnswer(outcome=RewardOutcome.ERROR, value=None, detail=detail)
            return Judged(answers=(answer,) * len(items), cost=bill.cost)
        return judged

    def _function(self, component: str) -> AsksServer:
        """Made in the loop, of which its client is."""
        function = self._functions.get(component)
        if function is None:
            function = self._functions[component] = self._made(component)
        return function

    def _made(self, component: str) -> AsksServer:
        config, site = self._configs[component], self._site
        limits = config.limits.share(site.num_workers)
        client = EndpointClient(
            config.address,
            EndpointManners(
                requests_at_once=limits.requests_at_once,
                attempt_s=limits.timeout_s,
                mend=f"mend {config.faults_of} of the reward function {component!r}",
            ),
            self._keys[component],
            budget=Budget(requests_per_minute=limits.requests_per_minute, tokens_per_minute=limits.tokens_per_minute),
            chance=random.Random(f"{site.seed} {self._worker} {component}"),
        )
        self._clients.append(client)
        asker = Asker(client, self._journal, component=component, address=config.address)
        if isinstance(config, JudgeConfig):
            return Judge(config, asker, component=component, seed=site.seed)
        return HttpScores(config, asker, component=component)
