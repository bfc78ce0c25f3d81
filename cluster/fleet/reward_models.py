"""How a reward worker reaches the run's reward models: by their names, so that one which was restarted is found.

    call -> the model with the fewest of our calls --answered--> scores
                 ^                                 --lost, or it gets on with nothing for deadline_s--> another one
                 +---- looked up anew ------------------------------------------------------------------+

The deadline is that of a model's own work, one batch: a call that waits behind others is waited for as long as the
model gets on with those.
"""

import time
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, Protocol

from reward.config import RewardConfig
from reward.errors import RewardError
from reward.types import RewardInput

BATCH_TIMEOUTS = 10
"""Time for one batch of a reward model, in multiples of `reward.timeout_s`."""
ALIVE_DEADLINE_S = 30.0
"""Time in which a model says how many batches it has done: it does so while it computes."""
RETRY_S = 0.5


def model_deadline_s(config: RewardConfig) -> float:
    """Seconds that a reward model may take for one batch."""
    return BATCH_TIMEOUTS * config.timeout_s


class ModelLostError(Exception):
    """A model's process is gone, or does nothing."""


class FindsModels(Protocol):
    """What is asked of Ray; a test has its own."""

    def find(self) -> Mapping[str, Any]:
        """Name -> handle of every model that there is now; a restarted one has another name."""
        ...

    def start(self, handle: Any, items: Sequence[RewardInput]) -> Any:
        """A call on its way."""

    def answer(self, call: Any, deadline_s: float) -> list[float] | None:
        """Its scores, or None where they did not come in that time. Errors: `ModelLostError`; what the model raised."""

    def num_batches(self, handle: Any) -> int:
        """That it has done. Errors: `ModelLostError` when it does not say."""
        ...


class RayModels:
    """The actors in the run's namespace whose name begins with `prefix`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def find(self) -> Mapping[str, Any]:
        """As `FindsModels`."""
        import ray.util

        found = {}
        for name in ray.util.list_named_actors():
            if name.startswith(self._prefix):
                try:
                    found[name] = ray.get_actor(name)
                except ValueError:  # gone since
                    continue
        return found

    def start(self, handle: Any, items: Sequence[RewardInput]) -> Any:
        """As `FindsModels`."""
        return handle.score.remote(items)

    def answer(self, call: Any, deadline_s: float) -> list[float] | None:
        """As `FindsModels`."""
        import ray
        import ray.exceptions

        ready, _ = ray.wait([call], timeout=deadline_s)
        if not ready:
            return None
        try:
            return list(ray.get(call))
        except ray.exceptions.RayActorError as error:
            raise ModelLostError(str(error).splitlines()[0]) from error

    def num_batches(self, handle: Any) -> int:
        """As `FindsModels`."""
        import ray
        import ray.exceptions

        try:
            return int(ray.get(handle.num_batches.remote(), timeout=ALIVE_DEADLINE_S))
        except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError) as error:
            raise ModelLostError(f"{type(error).__name__} while it was asked how far it is") from error


class RewardModels:
    """What a reward worker calls to have completions scored. Travels to its process; thread-safe there.

    Errors: what the model raises; `RewardError` when for `patience_s` none could be reached, which is longer than one
    takes to be restarted.
    """

    def __init__(self, prefix: str, *, deadline_s: float, patience_s: float, finds: FindsModels | None = None) -> None:
        self._finds: FindsModels = finds or RayModels(prefix)
        self._deadline_s = deadline_s
        self._patience_s = patience_s
        self._models: dict[str, Any] = {}
        self._lost: set[str] = set()
        self._load: dict[str, int] = {}
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = Lock()

    def __call__(self, items: Sequence[RewardInput]) -> Sequence[float]:
        """One score for each completion, in order."""
        reason, lost_s = "there is none", 0.0
        while not lost_s or time.monotonic() - lost_s <= self._patience_s:
            taken = self._take()
            if taken is None:
                lost_s = lost_s or time.monotonic()
                time.sleep(RETRY_S)
                continue
            name, model = taken
            try:
                return self._score(model, items)
            except ModelLostError as error:
                lost_s, reason = lost_s or time.monotonic(), f"{name}: {error}"
                self._give_up(name)
            finally:
                with self._lock:
                    self._load[name] -= 1
        raise RewardError(f"no reward model could be reached for {self._patience_s:g} s; the last one: {reason}")

    def _score(self, model: Any, items: Sequence[RewardInput]) -> list[float]:
        call, done = self._finds.start(model, items), -1
        while (scores := self._finds.answer(call, self._deadline_s)) is None:
            before, done = done, self._finds.num_batches(model)
            if done == before:
                raise ModelLostError(f"it has done nothing for {self._deadline_s:g} s")
        return scores

    def _take(self) -> tuple[str, Any] | None:
        """Name and handle of the model with the fewest of our calls; None where there is none."""
        with self._lock:
            if not self._models or self._lost:
                self._models = dict(self._finds.find())
                self._lost &= self._models.keys()
            usable = [name for name in self._models if name not in self._lost]
            # One that did nothing is asked again where there is no other: it may only have been slow.
            name = min(usable or self._models, key=lambda name: self._load.get(name, 0), default=None)
            if name is None:
                return None
            self._load[name] = self._load.get(name, 0) + 1
            return name, self._models[name]

    def _give_up(self, name: str) -> None:
        with self._lock:
            self._lost.add(name)
            is_alone = len(self._models) == 1
        if is_alone:
            time.sleep(RETRY_S)
