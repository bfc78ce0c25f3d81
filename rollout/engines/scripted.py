"""An engine without a model, for trying a world: what it replies is given."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rollout.engines.protocol import EngineOutput, SampleSpec
from rollout.episodes.conversation import digest_of
from rollout.transfer.manifest import TensorSpec
from rollout.types import FinishReason, Logprobs


class ScriptedEngine:
    """Implements `rollout.engines.protocol.Engine`: each request ends in the next step, with the text for it."""

    def __init__(self, tokenizer: Any, end_id: int | None, reply: Callable[[SampleSpec], str]) -> None:
        """`reply` gives the text without its end, which is `end_id`; a text that is longer than asked for is cut."""
        self._tokenizer = tokenizer
        self._end = [] if end_id is None else [end_id]
        self._reply = reply
        self._waiting: dict[str, SampleSpec] = {}

    def add(self, specs: Sequence[SampleSpec]) -> None:
        """As in `Engine`."""
        self._waiting |= {spec.request_id: spec for spec in specs}

    def step(self) -> list[EngineOutput]:
        """As in `Engine`."""
        specs, self._waiting = list(self._waiting.values()), {}
        return [self._output(spec) for spec in specs]

    def has_unfinished(self) -> bool:
        """As in `Engine`."""
        return bool(self._waiting)

    def abort(self, request_ids: Sequence[str]) -> None:
        """As in `Engine`."""
        for request_id in request_ids:
            self._waiting.pop(request_id, None)

    def abort_all(self) -> None:
        """As in `Engine`."""
        self._waiting = {}

    def start_weight_update(self) -> None:
        """There are no weights."""

    def load_tensors(self, tensors: Sequence[tuple[TensorSpec, np.ndarray]]) -> None:
        """There are no weights."""

    def finish_weight_update(self, policy_version: int) -> None:
        """There are no weights."""

    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[Logprobs]:
        """Of an engine to which every token is certain."""
        return [np.zeros(len(sequence) - 1, np.float32) for sequence in sequences]

    def close(self) -> None:
        """Nothing is held."""

    def _output(self, spec: SampleSpec) -> EngineOutput:
        whole: list[int] = [*self._tokenizer(self._reply(spec), add_special_tokens=False)["input_ids"], *self._end]
        token_ids = whole[: spec.sampling.max_tokens]
        is_ended = len(token_ids) == len(whole) and bool(self._end)
        text: str = self._tokenizer.decode(token_ids[:-1] if is_ended else token_ids, skip_special_tokens=False)
        return EngineOutput(
            request_id=spec.request_id,
            token_ids=np.array(token_ids, np.int32),
            logprobs=np.zeros(len(token_ids), np.float32),
            text=text,
            finish_reason=FinishReason.STOP if is_ended else FinishReason.LENGTH,
            versions=((0, 0, len(token_ids)),),
            read=digest_of(spec.token_ids),
        )
