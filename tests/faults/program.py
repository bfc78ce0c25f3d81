"""A `shoal` to which faults happen: `python -m tests.faults.program SPEC train ...`; `faults.start` writes SPEC.
Points of the product are wrapped before its command line runs; nothing is changed until a fault is due."""

import asyncio
import errno
import functools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from tests.faults.faults import HEAD, NODE, Event, Fault, is_alive
from tests.integration.runs import read_lines

IDLE_S = 4.0
"""How long the run rests when a sampler was struck while idle: a probe, and nothing else, has this time to find it."""
IN_CALL_S = 0.2
SLOW_STEP_S, SLOW_ENGINE_STEPS = 0.3, 16
SLOW_TRAINING_S, SLOW_TRAINING_STEPS = 3.0, 3

Stage = Callable[..., Any]


class Striker:
    """Knows the processes of the run, where it stands, and strikes once for each fault."""

    def __init__(self, faults: Sequence[Fault], record: Path) -> None:
        self._faults = list(faults)
        self._record = record
        self.controller: Any = None
        self.actors: dict[str, tuple[Any, int]] = {}
        """Name -> the actor's handle and process id."""
        self.num_slow_steps = 0
        """Training steps that are still to take long."""

    def due(self, event: Event) -> Fault | None:
        """The fault that is to happen here. One whose victim is gone already stays: it does not happen."""
        if self.controller is None:
            return None
        step = self.controller._state.step
        here = (f for f in self._faults if (f.event, f.step) == (event, step) and f.action != "lose_node")
        return next((fault for fault in here if is_alive(self._pid(fault))), None)

    def reach(self, event: Event) -> bool:
        """Strikes if a fault is due here; True if it did."""
        fault = self.due(event)
        if fault is None:
            return False
        self._faults.remove(fault)
        self.strike(fault)
        return True

    def hold(self, event: Event) -> Fault | None:
        """The fault that is to happen in the call which comes next. Its victim is stopped, if it is to be killed, so
        that it is certainly in that call; `strike` must follow, wherever the run is then."""
        fault = self.due(event)
        if fault is not None:
            self._faults.remove(fault)
            if fault.action == "kill":
                os.kill(self._pid(fault), signal.SIGSTOP)
        return fault

    def strike(self, fault: Fault) -> None:
        pid = self._pid(fault)
        line = {"victim": fault.victim, "action": fault.action, "pid": pid, "time_s": time.time()}
        # The line first: who kills this process writes none after it.
        with self._record.open("a") as file:
            file.write(json.dumps(line | {"event": fault.event, "step": fault.step}) + "\n")
        getattr(self, f"_{fault.action}")(fault, pid)

    def _pid(self, fault: Fault) -> int:
        if fault.role in ("job", "checkpoint"):
            return os.getpid()
        return self.actors[fault.victim][1]

    def _kill(self, fault: Fault, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def lose_node_of(self, run: Path, group_id: str, attempt: int) -> None:
        """When a group was sampled that lies on a node which may be lost: any but the head, the end of the cluster."""
        fault = next((f for f in self._faults if f.action == "lose_node"), None)
        if fault is None or self.controller._state.step != fault.step:
            return
        lines = read_lines(run / "ledger.jsonl")
        leased = {(e["group_id"], e["attempt"]): e["worker"] for e in lines if e.get("state") == "leased"}
        index = int(leased[group_id, attempt].rpartition("-")[2])
        here = replace(fault, index=index)
        if _node_of(self._pid(here)) not in (None, HEAD):
            self._faults.remove(fault)
            self.strike(here)

    def _lose_node(self, fault: Fault, pid: int) -> None:
        """The node's own processes first: what is left could not tell anybody that it ends."""
        name = _node_of(pid)
        assert name not in (None, HEAD), name  # or every process of the user's is one of it
        lost = [process for process in psutil.process_iter(["create_time"]) if _node_of(process.pid) == name]
        for process in sorted(lost, key=lambda process: process.info["create_time"] or 0.0):
            with suppress(ProcessLookupError):  # workers end by themselves when their raylet is gone
                os.kill(process.pid, signal.SIGKILL)

    def _hang(self, fault: Fault, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)  # the test, or the end of the run, lets it go on or kills it

    def _raise(self, fault: Fault, pid: int) -> None:
        self.actors[fault.victim][0].__ray_call__.remote(_let_steps_raise)

    def _slow(self, fault: Fault, pid: int) -> None:
        if fault.role == "learner":
            self.num_slow_steps = SLOW_TRAINING_STEPS
        else:
            self.actors[fault.victim][0].__ray_call__.remote(_let_steps_be_slow)

    async def be_slow(self, *_: Any) -> None:
        if self.num_slow_steps:
            self.num_slow_steps -= 1
            await asyncio.sleep(SLOW_TRAINING_S)

    def _no_space(self, fault: Fault, pid: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _corrupt(self, fault: Fault, pid: int) -> None:
        """One bit of the newest checkpoint, on the disk, if there is any."""
        for newest in sorted(self.controller._parts.run.checkpoints_path.glob("step-*"))[-1:]:
            flip_bit(newest / "model.safetensors")


def _node_of(pid: int) -> str | None:
    """The name of its node; None for a process that is of none, or gone."""
    try:
        environment: dict[str, str] = psutil.Process(pid).environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    return environment.get(NODE)


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _let_steps_raise(worker: Any) -> None:
    def step() -> None:
        raise RuntimeError("planted by a fault test")

    worker._engine.step = step


def _let_steps_be_slow(worker: Any) -> None:
    """For a while: as many of its engine's steps as two groups take."""
    step, left = worker._engine.step, SLOW_ENGINE_STEPS

    def slow_step() -> Any:
        nonlocal left
        if left > 0:
            left -= 1
            time.sleep(SLOW_STEP_S)
        return step()

    worker._engine.step = slow_step


def _record_sampled(worker: Any, path: str) -> None:
    """In a sampler's process: every completion that its engine gives out is written down before anybody has it."""
    finish_completion = worker._finish_completion

    def recorded(output: Any) -> None:
        line = {"request_id": output.request_id, "token_ids": output.token_ids.tolist()}
        with Path(path).open("a") as file:
            file.write(json.dumps(line) + "\n")  # one write, so that lines of several samplers do not mix
        finish_completion(output)

    worker._finish_completion = recorded


def _before(owner: Any, name: str, work: Callable[..., Any]) -> None:
    """`work(*args)` happens before `owner.name(*args)`; both may be coroutines."""
    original = getattr(owner, name)

    if asyncio.iscoroutinefunction(original):

        @functools.wraps(original)
        async def stage(*args: Any, **kwargs: Any) -> Any:
            if asyncio.iscoroutinefunction(work):
                await work(*args)
            else:
                work(*args)
            return await original(*args, **kwargs)
    else:

        @functools.wraps(original)
        def stage(*args: Any, **kwargs: Any) -> Any:
            work(*args)
            return original(*args, **kwargs)

    setattr(owner, name, stage)


def _after(owner: Any, name: str, work: Callable[..., Any]) -> None:
    original = getattr(owner, name)

    if asyncio.iscoroutinefunction(original):

        @functools.wraps(original)
        async def stage(*args: Any, **kwargs: Any) -> Any:
            result = await original(*args, **kwargs)
            done = work(*args)
            if asyncio.iscoroutine(done):
                await done
            return result
    else:

        @functools.wraps(original)
        def stage(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            work(*args)
            return result

    setattr(owner, name, stage)


def _within(owner: Any, name: str, event: Event, striker: Striker) -> None:
    """The victim is stopped, given its work, and struck while it has it."""
    original = getattr(owner, name)

    @functools.wraps(original)
    async def stage(*args: Any, **kwargs: Any) -> Any:
        fault = striker.hold(event)
        if fault is None:
            return await original(*args, **kwargs)
        call = asyncio.ensure_future(original(*args, **kwargs))
        await asyncio.sleep(IN_CALL_S)
        striker.strike(fault)
        return await call

    setattr(owner, name, stage)


def record_sampled(path: str) -> None:
    """Has every sampler write down what its engine gives out, also one that is started in place of another."""
    from cluster.fleet.actors import Launcher

    start = Launcher.start

    def started(self: Launcher, name: str) -> Any:
        handle = start(self, name)
        if name.startswith("sampler"):
            handle.__ray_call__.remote(_record_sampled, path)
        return handle

    Launcher.start = started  # type: ignore[method-assign]


def install(striker: Striker) -> None:
    """Wraps the points of the product that faults are named after."""
    from cluster.fleet import actors
    from cluster.groups import pipeline
    from cluster.groups.ledger import Ledger
    from cluster.groups.reward_router import RewardRouter
    from cluster.loop import controller
    from cluster.loop.batches import Batches
    from cluster.loop.publisher import Publisher
    from cluster.record.run_directory import RunDirectory
    from cluster.weights.checkpointing import Checkpoints
    from cluster.weights.learner_group import LearnerGroup
    from cluster.weights.rank_steps import RankSteps
    from cluster.weights.weight_sync import WeightSync

    async def learn_pids(_: Any, members: Any) -> None:
        for actor in members:
            pid = await actor.handle.__ray_call__.remote(lambda _: os.getpid())
            striker.actors[actor.name] = (actor.handle, pid)

    async def rest(*_: Any) -> None:
        fault = striker.due("idle")
        if striker.reach("idle") and fault is not None and fault.action != "slow":
            await asyncio.sleep(IDLE_S)

    def serve(sampler: Any, *_: Any) -> None:
        """Not while its batch is still on its way: what is stopped then has nothing to answer late."""
        fault = striker.due("serving")
        if fault is not None and fault.victim == sampler.name:
            striker.reach("serving")

    def keep_controller(self: Any, *_: Any) -> None:
        striker.controller = self

    def lose_node(_: Ledger, group_id: str, attempt: int, *_others: Any) -> None:
        if striker.controller is not None:
            striker.lose_node_of(striker.controller._parts.run.path, group_id, attempt)

    def reach(event: Event) -> Callable[..., bool]:
        return lambda *_: striker.reach(event)

    _after(actors.Fleet, "_ready", learn_pids)
    _after(controller.Controller, "__init__", keep_controller)
    _after(pipeline, "submit", serve)
    _before(LearnerGroup, "train", rest)
    _before(WeightSync, "_send_chunks", reach("syncing"))
    _within(RankSteps, "train", "training", striker)
    _before(RankSteps, "train", striker.be_slow)
    _within(RewardRouter, "score", "scoring", striker)
    _after(Ledger, "sampled", reach("generated"))
    _after(Ledger, "sampled", lose_node)
    _after(Batches, "take", reach("scored"))
    _after(LearnerGroup, "train", reach("trained"))
    _before(Publisher, "publish", reach("before_sync"))
    _after(Publisher, "publish", reach("after_sync"))
    _before(RunDirectory, "append_metrics", reach("record"))
    _after(Checkpoints, "_save_learners", reach("saving"))
    _after(Checkpoints, "save", reach("saved"))


def main() -> int:
    spec = json.loads(sys.argv[1])
    install(Striker([Fault(**fault) for fault in spec["faults"]], Path(spec["record"])))
    record_sampled(spec["sampled"])
    from cluster.cli import main as shoal

    return shoal(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
