"""Replies of episodes that an engine works on. Touched by the engine's thread alone."""

from collections.abc import Collection
from concurrent.futures import Future
from dataclasses import dataclass

from rollout.engines.failures import as_engine_error
from rollout.engines.outputs import Key, reply_id_of, request_id_of
from rollout.engines.protocol import Engine, EngineOutput, SampleSpec
from rollout.episodes.conversation import digest_of
from rollout.errors import EngineError
from rollout.types import Completion


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    done: "Future[Completion]"
    digest: str
    """Of the tokens that it is asked for with."""


class Replies:
    """Request id -> who waits for it."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Reply] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, engine: Engine, spec: SampleSpec, done: "Future[Completion]") -> None:
        """Has the engine work on one. One that the engine does not take is that reply's error, and no other's."""
        try:
            engine.add([spec])
        except Exception as error:  # noqa: BLE001  # vLLM refuses a request by raising whatever it likes
            done.set_exception(as_engine_error(spec.request_id, "does not take a reply", error))
        else:
            self._waiting[spec.request_id] = _Reply(done=done, digest=digest_of(spec.token_ids))

    def deliver(self, output: EngineOutput, completion: Completion) -> bool:
        """Whether an output is a reply, which is then handed to who waits. One that the engine sampled behind other
        tokens than it was asked to is an error."""
        reply = self._waiting.pop(output.request_id, None)
        if reply is None:
            return False
        if output.read and output.read != reply.digest:
            reply.done.set_exception(
                EngineError(f"the engine read other tokens than it was given, of {output.request_id}")
            )
        else:
            reply.done.set_result(completion)
        return True

    def of(self, keys: Collection[Key], *, group_size: int) -> list[str]:
        """The request ids of leases."""
        given_up = {request_id_of(key, i) for key in keys for i in range(group_size)}
        return [request_id for request_id in self._waiting if reply_id_of(request_id) in given_up]

    def end(self, request_ids: Collection[str], error: EngineError) -> None:
        """Tells who waits for these."""
        for request_id in list(request_ids):
            self._waiting.pop(request_id).done.set_exception(error)

    def end_all(self, error: EngineError) -> None:
        """Tells all who wait."""
        self.end(self._waiting, error)
