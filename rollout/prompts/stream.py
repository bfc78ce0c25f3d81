"""Prompts -> an endless stream that can be resumed at any point.

What a run is asked next is a pure function of (data, configuration, state): the order of an epoch sorts the prompts by
a digest, the task that comes next is the one that is furthest behind its share, and with a curriculum a digest and the
pass rates say which prompts are left out. None of it depends on process, Python version, library or time.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rollout.config import CurriculumConfig
from rollout.errors import DataError
from rollout.prompts.curriculum import chances, is_asked, updated
from rollout.prompts.prompt_set import PromptSet
from rollout.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlace:
    """How far a stream has come with the prompts of one task."""

    passed: int
    """Prompts that it came by, in all passes: those that it gave, and those that the curriculum left out."""
    asked: int
    """Prompts that it gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptStreamState:
    """Where a stream stands: all that a checkpoint needs.

    Example:
        PromptStreamState(index=96, seed=0, fingerprint="9f2c...", places={"sums": TaskPlace(passed=96, asked=96)})
    """

    index: int
    """Index of the prompt that comes next."""
    seed: int
    fingerprint: str
    """Of the prompt set."""
    places: Mapping[str, TaskPlace] = field(default_factory=dict)
    """Of each task; empty in checkpoints of before there were several, where `index` says it."""
    pass_rates: Mapping[str, float] = field(default_factory=dict)
    """Uid -> share of completions that were right, a running mean, of each prompt that the curriculum knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFacts:
    """What metrics say of a stream."""

    tasks: tuple[str, ...]
    """Those that prompts are taken from."""
    num_known: int = 0
    """Prompts with a pass rate: 0 without a curriculum."""
    pass_rate_mean: float | None = None
    """Over those prompts; None without any."""
    chance_mean: float | None = None
    """Of being asked in a pass, over those prompts."""


class _Passes:
    """The prompts of one task, pass after pass, in an order of its own each time."""

    def __init__(self, prompts: Sequence[Prompt], seed: int, passed: int) -> None:
        self._prompts = prompts
        self._seed = seed
        self.passed = passed
        self._order_epoch = -1
        self._order: list[int] = []

    def next(self) -> Prompt:
        """The next prompt, with its epoch."""
        epoch, position = divmod(self.passed, len(self._prompts))
        if epoch != self._order_epoch:
            self._order = epoch_order(tuple(prompt.uid for prompt in self._prompts), self._seed, epoch)
            self._order_epoch = epoch
        self.passed += 1
        return replace(self._prompts[self._order[position]], epoch=epoch)


class PromptStream:
    """The prompts of a run, without end: every epoch of a task gives each of its prompts once, or, with a curriculum,
    at most once."""

    def __init__(
        self,
        prompt_set: PromptSet,
        *,
        seed: int,
        weights: Mapping[str, float] | None = None,
        curriculum: CurriculumConfig | None = None,
        state: PromptStreamState | None = None,
    ) -> None:
        """`weights` are those of the tasks whose prompts are in the set, 1 for one that is not named; `state` is None
        at the start."""
        self._prompt_set = prompt_set
        self._seed = seed
        self._curriculum = curriculum
        self._index = 0 if state is None else state.index
        tasks = dict.fromkeys(prompt.task for prompt in prompt_set.prompts)
        places = {} if state is None else state.places
        alone = TaskPlace(passed=self._index, asked=self._index)
        self._weights = {name: (weights or {}).get(name, 1.0) for name in tasks}
        self._asked = {name: places.get(name, alone).asked for name in tasks}
        self._passes = {
            name: _Passes([p for p in prompt_set.prompts if p.task == name], seed, places.get(name, alone).passed)
            for name in tasks
        }
        self._pass_rates = {} if state is None else dict(state.pass_rates)

    @classmethod
    def restore(
        cls,
        prompt_set: PromptSet,
        state: PromptStreamState,
        *,
        weights: Mapping[str, float] | None = None,
        curriculum: CurriculumConfig | None = None,
    ) -> "PromptStream":
        """The stream as it was when `state` was taken. Costs one sort, wherever the stream stood.

        Raises DataError when the prompts are not those of the state.
        """
        if state.fingerprint != prompt_set.fingerprint:
            raise DataError(
                f"the prompts of task {prompt_set.report.task!r} are not those that the run was started with "
                f"(fingerprint {prompt_set.fingerprint[:12]}, the checkpoint has {state.fingerprint[:12]}); restore "
                "data, template, tokenizer and token limits, or start a new run"
            )
        return cls(prompt_set, seed=state.seed, weights=weights, curriculum=curriculum, state=state)

    def next(self) -> Prompt:
        """The next prompt, with its epoch and its index in the run."""
        task = next_task(self._asked, self._weights)
        prompt = self._passes[task].next()
        while not self._is_asked(prompt):
            prompt = self._passes[task].next()
        prompt = replace(prompt, index=self._index)
        self._asked[task] += 1
        self._index += 1
        return prompt

    def learn(self, results: Iterable[tuple[Prompt, float]]) -> None:
        """What became of prompts that were asked: the share of their completions that was right. In the order of the
        stream, whatever order they come in. Without a curriculum nobody wants to know."""
        if self._curriculum is None:
            return
        for prompt, newest in sorted(results, key=lambda result: result[0].index):
            before = self._pass_rates.get(prompt.uid)
            self._pass_rates[prompt.uid] = updated(self._curriculum, before, newest)

    def state(self) -> PromptStreamState:
        """Where the stream stands, for `restore`."""
        return PromptStreamState(
            index=self._index,
            seed=self._seed,
            fingerprint=self._prompt_set.fingerprint,
            places={
                name: TaskPlace(passed=passes.passed, asked=self._asked[name]) for name, passes in self._passes.items()
            },
            pass_rates=dict(self._pass_rates),
        )

    def facts(self) -> StreamFacts:
        """For metrics."""
        curriculum, num_known = self._curriculum, len(self._pass_rates)
        if curriculum is None or not num_known:
            return StreamFacts(tasks=tuple(self._passes))
        rates_P = np.fromiter(self._pass_rates.values(), np.float64, num_known)
        return StreamFacts(
            tasks=tuple(self._passes),
            num_known=num_known,
            pass_rate_mean=float(rates_P.mean()),
            chance_mean=float(chances(curriculum, rates_P).mean()),
        )

    def _is_asked(self, prompt: Prompt) -> bool:
        curriculum, uid = self._curriculum, prompt.uid
        return curriculum is None or is_asked(
            curriculum, self._pass_rates.get(uid), seed=self._seed, epoch=prompt.epoch, uid=uid
        )


def next_task(asked: Mapping[str, int], weights: Mapping[str, float]) -> str:
    """The task that the next prompt is from: the one that is furthest behind its share of all prompts, the first one of
    several. No task is ever a whole prompt ahead of its share, so that batches are alike.

    `asked` counts the prompts of each task so far.
    """
    number, total = sum(asked.values()) + 1, sum(weights.values())
    return max(weights, key=lambda name: weights[name] * number - total * asked[name])


def epoch_order(uids: tuple[str, ...], seed: int, epoch: int) -> list[int]:
    """A permutation of the prompts' places, as good as random and the same everywhere: sorted by a digest."""

    def key(place: int) -> bytes:
        return hashlib.sha256(f"{seed}/{epoch}/{uids[place]}".encode()).digest()

    return sorted(range(len(uids)), key=key)


def eval_prompts(prompt_set: PromptSet, num_prompts: int) -> tuple[Prompt, ...]:
    """`num_prompts` prompts of each task (all, where there are fewer), the same ones each time, in the order of their
    digests.

    A larger number takes the smaller one's prompts and more, so that evaluations of two sizes share questions.
    """
    of_tasks: dict[str, list[Prompt]] = {}
    for prompt in prompt_set.prompts:
        of_tasks.setdefault(prompt.task, []).append(prompt)
    chosen = [p for prompts in of_tasks.values() for p in sorted(prompts, key=lambda p: p.uid)[:num_prompts]]
    return tuple(replace(prompt, epoch=0, index=index) for index, prompt in enumerate(chosen))


def sample_seed(  # all that a draw may depend on
    run_seed: int, purpose: str, epoch: int, prompt_uid: str, sample_index: int, *, turn: int = 0
) -> int:
    """Seed of one completion, 0 to 2**63 - 1: what the engine's signed 64-bit seeds can hold.

    It depends on what is sampled, not on when or where: a group that is sampled again after a fault draws the same
    randomness. `turn` is that of a reply of an episode, from 1.
    """
    of_turn = [turn] if turn else []
    key = json.dumps([run_seed, purpose, epoch, prompt_uid, sample_index, *of_turn]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8]) >> 1
