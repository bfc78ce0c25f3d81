"""Prompts -> an endless stream that can be resumed at any point.

What a run is asked next is a pure function of (data, seed, index): the order of an epoch sorts the prompts by a
digest, so it does not depend on process, Python version or library, and a stream is restored by its index alone.
"""

import hashlib
import json
from dataclasses import dataclass, replace

from rollout.errors import DataError
from rollout.prompts.prompt_set import PromptSet
from rollout.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptStreamState:
    """Where a stream stands: all that a checkpoint needs.

    Example:
        PromptStreamState(index=96, seed=0, fingerprint="9f2c...")
    """

    index: int
    """Index of the prompt that comes next."""
    seed: int
    fingerprint: str
    """Of the prompt set."""


class PromptStream:
    """The prompts of a run, without end: every epoch gives each prompt once, in an order of its own."""

    def __init__(self, prompt_set: PromptSet, *, seed: int, index: int = 0) -> None:
        assert index >= 0, index
        self._prompt_set = prompt_set
        self._seed = seed
        self._index = index
        self._order_epoch = -1
        self._order: list[int] = []

    @classmethod
    def restore(cls, prompt_set: PromptSet, state: PromptStreamState) -> "PromptStream":
        """The stream as it was when `state` was taken. Costs one sort, wherever the stream stood.

        Raises DataError when the prompts are not those of the state.
        """
        if state.fingerprint != prompt_set.fingerprint:
            raise DataError(
                f"the prompts of task {prompt_set.report.task!r} are not those that the run was started with "
                f"(fingerprint {prompt_set.fingerprint[:12]}, the checkpoint has {state.fingerprint[:12]}); restore "
                "data, template, tokenizer and token limits, or start a new run"
            )
        return cls(prompt_set, seed=state.seed, index=state.index)

    def next(self) -> Prompt:
        """The next prompt, with its epoch and its index in the run."""
        prompts = self._prompt_set.prompts
        epoch, position = divmod(self._index, len(prompts))
        if epoch != self._order_epoch:
            self._order = epoch_order(tuple(prompt.uid for prompt in prompts), self._seed, epoch)
            self._order_epoch = epoch
        prompt = replace(prompts[self._order[position]], epoch=epoch, index=self._index)
        self._index += 1
        return prompt

    def state(self) -> PromptStreamState:
        """Where the stream stands, for `restore`."""
        return PromptStreamState(index=self._index, seed=self._seed, fingerprint=self._prompt_set.fingerprint)


def epoch_order(uids: tuple[str, ...], seed: int, epoch: int) -> list[int]:
    """A permutation of the prompts' places, as good as random and the same everywhere: sorted by a digest."""

    def key(place: int) -> bytes:
        return hashlib.sha256(f"{seed}/{epoch}/{uids[place]}".encode()).digest()

    return sorted(range(len(uids)), key=key)


def eval_prompts(prompt_set: PromptSet, num_prompts: int) -> tuple[Prompt, ...]:
    """`num_prompts` prompts (all, where there are fewer), the same ones each time, in the order of their digests.

    A larger number takes the smaller one's prompts and more, so that evaluations of two sizes share questions.
    """
    chosen = sorted(prompt_set.prompts, key=lambda prompt: prompt.uid)[:num_prompts]
    return tuple(replace(prompt, epoch=0, index=index) for index, prompt in enumerate(chosen))


def sample_seed(run_seed: int, purpose: str, epoch: int, prompt_uid: str, sample_index: int) -> int:
    """Seed of one completion, 0 to 2**63 - 1: what the engine's signed 64-bit seeds can hold.

    It depends on what is sampled, not on when or where: a group that is sampled again after a fault draws the same
    randomness.
    """
    key = json.dumps([run_seed, purpose, epoch, prompt_uid, sample_index]).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8]) >> 1
