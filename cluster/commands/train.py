"""`shoal train`: from a configuration to a finished run directory.

run directory -> resolve model -> read prompts -> Ray -> actors -> (load checkpoint) -> Controller.run -> summary
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.commands.inputs import Inputs, read_inputs
from cluster.commands.start_checks import check_own_parts
from cluster.config import RunConfig
from cluster.errors import StoppedError
from cluster.fleet.actors import Fleet, launch_fleet
from cluster.fleet.deadlines import first_of
from cluster.fleet.placement import plan_bundles, total_resources
from cluster.fleet.ray_session import ray_session
from cluster.groups.ledger import LedgerState
from cluster.loop.background import settle
from cluster.loop.controller import Controller
from cluster.loop.parts import RunParts
from cluster.record.group_table import load_libraries
from cluster.record.instants import append_if_possible, checkpoint_instant, run_instant, warner
from cluster.record.reporter import Part, Reporter
from cluster.record.run_directory import RunDirectory
from cluster.record.run_lock import run_lock
from cluster.record.terminal import make_reporter
from cluster.record.trackers import start_trackers
from cluster.types import Event, Instant, RunSummary
from cluster.weights.checkpointing import Checkpoints, check_fingerprints
from cluster.weights.run_state import RunState
from cluster.weights.weight_sync import NUM_CANARY_PROMPTS
from reward.judging.start_check import check_judges
from reward.worker import validate_reward_config
from rollout.config import weights_of
from rollout.prompts.stream import PromptStream

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
ECHO_S = 1.0
"""A signal this soon after the first is the same one: `timeout` and others send it to a process and to its group."""


def train_command(config: RunConfig, run_path: Path, *, resume: bool) -> RunSummary:
    """Trains; returns the summary of a run that reached its last step.

    What fails before the first step leaves nothing behind: a new run's directory is removed again, a resumed one is as
    it was, but for damaged checkpoints, which are set aside. After that the directory stays, with a summary that says
    `failed`.

    Errors: `StoppedError` after SIGINT or SIGTERM, with the checkpoint written; any other `ShoalError`.
    """
    reporter = make_reporter()
    validate_reward_config(config.reward)
    check_judges(config.reward.asked)
    check_own_parts(config.learner.objective)
    # First of all: a place that cannot be written is told before a model is made or fetched.
    run = RunDirectory.existing(run_path) if resume else RunDirectory.create(run_path, config)
    try:
        with run_lock(run.path):
            return _train_locked(config, run, reporter, resume=resume)
    finally:
        reporter.close()


def _train_locked(config: RunConfig, run: RunDirectory, reporter: Reporter, *, resume: bool) -> RunSummary:
    warn = warner(run, reporter)
    set_aside: list[Event] = []

    def on_set_aside(name: str, reason: str) -> None:
        event = checkpoint_instant(Instant.CHECKPOINT_SET_ASIDE, name, reason)
        set_aside.append(event)
        append_if_possible(run, event)

    def on_not_written(name: str, reason: str) -> None:
        append_if_possible(run, checkpoint_instant(Instant.CHECKPOINT_NOT_WRITTEN, name, reason))

    checkpoints = Checkpoints(
        run.checkpoints_path, config.checkpoint, warn=warn, on_set_aside=on_set_aside, on_not_written=on_not_written
    )
    try:
        if resume:
            run = RunDirectory.open(run.path)
        resumed = _newest_checkpoint(config, run, checkpoints) if resume else None
        finished = _finished(config, run, resumed)
        if finished is not None:
            done = f"{run.path} has finished all its {finished.num_steps} steps: 0 steps to train"
            reporter.phase(f"{done} (steps=N with a larger N goes on)")
            return finished
        inputs = read_inputs(config, reporter)
        if resumed is not None:
            check_fingerprints(inputs.fingerprints, resumed[1].fingerprints, run.path)
        start = _Start(
            config=config,
            inputs=inputs,
            run=run,
            checkpoints=checkpoints,
            resumed=resumed,
            is_new=not resume,
            set_aside=tuple(set_aside),
            reporter=reporter,
            warn=warn,
        )
        reporter.start(config, run.path)
        bundles = plan_bundles(config)
        with ray_session(num_cpus=total_resources(bundles).get("CPU", 1.0)):
            reporter.phase(f"starting {len(bundles)} actors", Part.START)
            return asyncio.run(_run(start))
    finally:
        if not resume:
            run.remove_if_unused()


def _newest_checkpoint(config: RunConfig, run: RunDirectory, checkpoints: Checkpoints) -> tuple[Path, RunState] | None:
    """None where the run was ended before its first checkpoint was due: it has lost nothing that was to be kept.

    Errors: `ResumeError` when there was one, or should be.
    """
    if not checkpoints.were_written() and len(run.read_log("metrics")) <= (config.checkpoint.every or config.steps):
        return None
    return checkpoints.newest()


def _finished(config: RunConfig, run: RunDirectory, resumed: tuple[Path, RunState] | None) -> RunSummary | None:
    """The summary of a run to which nothing is left to do; None for any other."""
    summary = run.read_summary()
    if resumed is None or summary is None or summary.status != "finished":
        return None
    return summary if config.steps <= resumed[1].step == summary.num_steps else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """All that a run has before its first actor."""

    config: RunConfig
    inputs: Inputs
    run: RunDirectory
    checkpoints: Checkpoints
    resumed: tuple[Path, RunState] | None
    """The checkpoint that the run goes on from; None for one that begins with the model."""
    is_new: bool
    set_aside: tuple[Event, ...]
    """What tells of the checkpoints that were newer and damaged."""
    reporter: Reporter
    warn: Callable[[str], None]


async def _run(start: _Start) -> RunSummary:
    """From the first actor to the last."""
    stop = asyncio.Event()
    received: list[int] = []
    with _signals(stop, received, start.reporter):
        loading = asyncio.ensure_future(asyncio.to_thread(load_libraries))  # while the actors import theirs
        launch = launch_fleet(
            start.config,
            model_dir=str(start.inputs.model_dir),
            teacher=start.inputs.teacher,
            run_dir=start.run.path.resolve(),
        )
        in_time, fleet = await first_of(launch, stop)
        await loading
        if not in_time:
            goes_on = "the run directory is removed" if start.is_new else "the run is as it was"
            raise _stopped(received, f"while its actors were starting; {goes_on}")
        try:
            return await _train(start, fleet, stop, received)
        finally:
            await fleet.close()
            start.checkpoints.remove_unfinished()


async def _train(start: _Start, fleet: Fleet, stop: asyncio.Event, received: list[int]) -> RunSummary:
    config, inputs, run, reporter = start.config, start.inputs, start.run, start.reporter
    if start.resumed is None:
        state = _new_state(config, inputs)
        if not start.is_new:
            reporter.phase("beginning again with step 1: the run was ended before its first checkpoint")
            run.begin_again(config)
            run.append_event(run_instant(Instant.RESUMED, "from the model, without a checkpoint", step=0))
    else:
        checkpoint, state = start.resumed
        reporter.phase(f"going on from {checkpoint.name}")
        await start.checkpoints.load_learners(fleet, checkpoint)
        # Only now: a resume that fails earlier leaves the run as it found it.
        run.rewind(state.step, state.log_sizes or None)
        run.write_config(config)
        for event in start.set_aside:  # what was written of them before went with the rest of the log
            run.append_event(event)
        run.append_event(run_instant(Instant.RESUMED, f"from {checkpoint.name}", step=state.step))
    run.write_vocabulary(inputs.vocabulary)
    for text in inputs.warnings:  # told already; a run that never began keeps no record
        append_if_possible(run, run_instant(Instant.WARNING, text))
    trackers = start_trackers(config, run.path, start.warn, step=None if start.resumed is None else state.step)
    try:
        parts = RunParts(
            config=config,
            fleet=fleet,
            stream=PromptStream.restore(
                inputs.train,
                state.stream,
                weights=weights_of(config.task),
                curriculum=config.curriculum if config.curriculum.enabled else None,
            ),
            eval_prompts=inputs.eval_prompts,
            canary_prompts=inputs.train.prompts[:NUM_CANARY_PROMPTS],
            run=run,
            checkpoints=start.checkpoints,
            reporter=reporter,
            warn=start.warn,
            trackers=trackers,
            start=state,
        )
        settle()
        return await _supervise(Controller(parts, stop), run, reporter, received)
    finally:
        trackers.close()


async def _supervise(controller: Controller, run: RunDirectory, reporter: Reporter, received: list[int]) -> RunSummary:
    """Runs the controller and writes how it ended, whatever happens."""
    try:
        summary = await controller.run()
    except BaseException as error:
        failed = replace(
            controller.summary("failed", error=str(error) or type(error).__name__),
            error_type=type(error).__name__,
            error_actor=str(getattr(error, "actor", "")),
        )
        append_if_possible(run, run_instant(Instant.ERROR, failed.error))
        run.write_summary(failed)
        reporter.finish(failed)
        raise
    run.write_summary(summary)
    reporter.finish(summary)
    if summary.status == "interrupted":
        after = f"after {summary.num_steps} step{'s' if summary.num_steps != 1 else ''}"
        raise _stopped(received, f"{after}; `shoal train --resume {run.path}` goes on from there")
    return summary


def _stopped(received: list[int], when: str) -> StoppedError:
    """The end that was asked for by a signal, in a sentence."""
    name = signal.Signals(received[0]).name if received else "a request"
    code = EXIT_CODES.get(signal.Signals(received[0]), 1) if received else 1
    return StoppedError(f"stopped by {name} {when}", code)


@contextmanager
def _signals(stop: asyncio.Event, received: list[int], reporter: Reporter) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks the run to stop and save; a second one ends the program at once, and with it its
    Ray, as if it had been killed: what was saved before is whole."""
    loop = asyncio.get_running_loop()
    first_s: list[float] = []

    def on_second(number: signal.Signals) -> None:
        if time.monotonic() - first_s[0] < ECHO_S:
            return
        reporter.close()  # a panel hides the cursor
        print("shoal: ended at once; what came after the last checkpoint is lost", file=sys.stderr, flush=True)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def on_signal(number: signal.Signals) -> None:
        first_s.append(time.monotonic())
        received.append(number)
        stop.set()
        reporter.phase(f"{number.name}: what the finished steps made is saved; once more ends it at once")
        for each in EXIT_CODES:
            loop.add_signal_handler(each, on_second, each)

    for number in EXIT_CODES:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in EXIT_CODES:
            loop.remove_signal_handler(number)


def _new_state(config: RunConfig, inputs: Inputs) -> RunState:
    return RunState(
        step=0,
        policy_version=0,
        stream=PromptStream(inputs.train, seed=config.seed).state(),
        ledger=LedgerState(),
        fingerprints=inputs.fingerprints,
    )
