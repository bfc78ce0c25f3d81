"""What a sampler asks of an inference engine. One implementation samples for real: `vllm.VLLMEngine`.

An engine is stepped by its caller, so that weights change between two steps and never within one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rollout.config import SamplingConfig
from rollout.transfer.manifest import TensorSpec
from rollout.types import FinishReason, Logprobs, TokenIds


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSpec:
    """One completion to sample."""

    request_id: str
    """Unique among the running ones."""
    token_ids: tuple[int, ...]
    """The prompt."""
    sampling: SamplingConfig
    seed: int | None
    """None: the engine draws as it likes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOutput:
    """One finished completion, as the engine reports it."""

    request_id: str
    token_ids: TokenIds
    """[T] int32, sampled tokens, end-of-sequence token included."""
    logprobs: Logprobs
    """[T] float32, under the distribution really sampled from; NaN or infinity where the engine computed them."""
    text: str
    finish_reason: FinishReason
    versions: tuple[tuple[int, int, int], ...]
    """(policy version, start, end) spans over the T tokens."""
    read: str = ""
    """Of a reply of an episode, the digest of the prompt as the engine has it; empty where it does not say."""


class Engine(Protocol):
    """An inference engine in this process."""

    def add(self, specs: Sequence[SampleSpec]) -> None:
        """Takes completions to sample; nothing is computed yet."""

    def step(self) -> list[EngineOutput]:
        """Computes one step of everything that runs; returns what finished in it."""
        ...

    def has_unfinished(self) -> bool:
        """Whether a further step would return something."""
        ...

    def abort(self, request_ids: Sequence[str]) -> None:
        """Gives up these requests; nothing of them is returned by a later step. Unknown ones are passed over."""

    def abort_all(self) -> None:
        """Gives up everything that runs; nothing of it is returned by a later step."""

    def start_weight_update(self) -> None:
        """From here to `finish_weight_update` the weights are in pieces and `step` must not be called."""

    def load_tensors(self, tensors: Sequence[tuple[TensorSpec, np.ndarray]]) -> None:
        """Loads tensors by their checkpoint names; the bytes must stay unchanged until `finish_weight_update`."""

    def finish_weight_update(self, policy_version: int) -> None:
        """Makes the new weights whole, forgets what the old ones computed, and stamps the version."""

    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[Logprobs]:
        """[n - 1] log-probabilities (nats, temperature 1) of tokens 1 to n - 1 of each sequence, under the current
        weights."""
        ...

    def close(self) -> None:
        """Gives up what runs, and the memory."""
