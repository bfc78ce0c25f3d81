"""An engine that keeps the contract of `rollout.engines.protocol.Engine` without a model, and writes down what was done
to it."""

import math
from collections.abc import Sequence

import numpy as np

from rollout.engines.protocol import EngineOutput, SampleSpec
from rollout.transfer.manifest import TensorSpec
from rollout.types import FinishReason, Logprobs


class FakeEngine:
    """Each completion ends in its `steps`-th step with the tokens (7, 8), and not while the engine is held."""

    def __init__(self, *, steps: int = 1, logprobs: tuple[float, ...] = (-0.5, -0.25), fail_at_step: int = 0) -> None:
        self.journal: list[str] = []
        self.specs: list[SampleSpec] = []
        self.loaded: dict[str, bytes] = {}
        self.policy_version = 0
        self.is_held = False
        self._running: list[tuple[SampleSpec, int]] = []
        self._steps = steps
        self._logprobs = logprobs
        self._fail_at_step = fail_at_step
        self._num_steps = 0
        self._is_updating = False

    def add(self, specs: Sequence[SampleSpec]) -> None:
        self.journal.append(f"add {len(specs)}")
        self.specs += specs
        self._running += [(spec, self._steps) for spec in specs]

    def step(self) -> list[EngineOutput]:
        assert not self._is_updating, "stepped while the weights were in pieces"
        self._num_steps += 1
        self.journal.append(f"step {len(self._running)}")
        if self._num_steps == self._fail_at_step:
            raise MemoryError("no block is free")
        if self.is_held:
            return []
        self._running = [(spec, left - 1) for spec, left in self._running]
        ended = [spec for spec, left in self._running if left == 0]
        self._running = [(spec, left) for spec, left in self._running if left > 0]
        return [self._output(spec) for spec in ended]

    def has_unfinished(self) -> bool:
        return bool(self._running)

    def abort(self, request_ids: Sequence[str]) -> None:
        kept = [(spec, left) for spec, left in self._running if spec.request_id not in request_ids]
        self.journal.append(f"abort {len(self._running) - len(kept)}")
        self._running = kept

    def abort_all(self) -> None:
        self.journal.append(f"abort {len(self._running)}")
        self._running = []

    def start_weight_update(self) -> None:
        self.journal.append("start")
        self._is_updating = True

    def load_tensors(self, tensors: Sequence[tuple[TensorSpec, np.ndarray]]) -> None:
        assert self._is_updating
        self.journal += [f"load {spec.name}" for spec, _ in tensors]
        self.loaded |= {spec.name: data.tobytes() for spec, data in tensors}

    def finish_weight_update(self, policy_version: int) -> None:
        self.journal.append(f"finish {policy_version}")
        self._is_updating = False
        self.policy_version = policy_version

    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[Logprobs]:
        self.journal.append("probe")
        return [np.full(len(sequence) - 1, -math.log(len(sequence)), np.float32) for sequence in sequences]

    def close(self) -> None:
        self.journal.append("close")

    def _output(self, spec: SampleSpec) -> EngineOutput:
        return EngineOutput(
            request_id=spec.request_id,
            token_ids=np.array([7, 8], np.int32),
            logprobs=np.array(self._logprobs, np.float32),
            text="78",
            finish_reason=FinishReason.STOP,
            versions=((self.policy_version, 0, 2),),
        )
