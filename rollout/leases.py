"""The groups that a sampler works on. Touched by two threads: the event loop waits, the engine's thread delivers."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from rollout.engines.outputs import Key
from rollout.errors import EngineError, WorldError
from rollout.types import Completion, RolloutGroup, SampleRequest


@dataclass(slots=True)
class _Lease:
    request: SampleRequest
    started_s: float
    done: Future[RolloutGroup]
    completions: dict[int, Completion] = field(default_factory=dict)


class Leases:
    """Key -> lease, under one lock: no thread sees the table while another changes it."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._leases: dict[Key, _Lease] = {}

    def __len__(self) -> int:
        with self._lock:
            return len(self._leases)

    def add(self, requests: Sequence[SampleRequest]) -> list[Key]:
        """Opens leases; returns the keys of those that were open under the same key, or for an earlier attempt at the
        same group. These are fenced off: who waits for one is told so, and what is computed for it is for nobody."""
        groups = {request.key[:2] for request in requests}
        assert len(groups) == len(requests), "a group came twice in one batch"
        now = time.time()
        with self._lock:
            fenced = [key for key in self._leases if key[:2] in groups]
            self._end(fenced, EngineError(f"{self._worker}: the lease was given up and given anew"))
            for request in requests:
                self._leases[request.key] = _Lease(request=request, started_s=now, done=Future())
        return fenced

    def future(self, key: Key) -> "Future[RolloutGroup] | None":
        """What a lease's group comes through; None for one that is not open."""
        with self._lock:
            lease = self._leases.get(key)
            return lease.done if lease is not None else None

    def hand_out(self, key: Key) -> bool:
        """Closes a lease whose group was delivered; False when it is closed already."""
        with self._lock:
            return self._leases.pop(key, None) is not None

    def deliver(self, key: Key, completion: Completion) -> None:
        """One completion of a group; with the last one the group is whole. One of a lease that was given up is for
        nobody: an engine may end it in the step in which it is told to stop."""
        with self._lock:
            lease = self._leases.get(key)
            if lease is None or lease.done.done():
                return
            lease.completions[completion.sample_index] = completion
            if len(lease.completions) == lease.request.group_size:
                lease.done.set_result(
                    RolloutGroup(
                        prompt=lease.request.prompt,
                        completions=tuple(lease.completions[i] for i in range(lease.request.group_size)),
                        attempt=lease.request.attempt,
                        worker=self._worker,
                        started_s=lease.started_s,
                        finished_s=time.time(),
                    )
                )

    def fail(self, key: Key, reason: WorldError) -> None:
        """A group that cannot be sampled: who waits for it gets the reason, and may ask for it until then."""
        with self._lock:
            lease = self._leases.get(key)
            if lease is not None and not lease.done.done():
                lease.done.set_exception(reason)

    def give_up(self, keys: Sequence[Key], reason: EngineError) -> None:
        """Ends these leases; who waits for one gets the reason."""
        with self._lock:
            self._end([key for key in keys if key in self._leases], reason)

    def give_up_all(self, reason: EngineError) -> None:
        """Ends every lease."""
        with self._lock:
            self._end(list(self._leases), reason)

    def _end(self, keys: Sequence[Key], reason: EngineError) -> None:
        for key in keys:
            lease = self._leases.pop(key)
            if not lease.done.done():
                lease.done.set_exception(reason)
