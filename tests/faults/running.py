"""A run in a `World`, from its start or its newest checkpoint."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cluster.groups.ledger import LedgerState
from cluster.loop.controller import Controller
from cluster.loop.parts import RunParts
from cluster.record.run_directory import RunDirectory
from cluster.types import RunSummary
from cluster.weights.checkpointing import Checkpoints
from cluster.weights.run_state import RunState
from tests.faults.prompts import Stream, prompt_of
from tests.faults.world import FINGERPRINTS, World


async def run_schedule(
    world: World, folder: Path, warnings: list[str], *, stop_after_s: float | None = None
) -> RunSummary:
    """One run from its start, or its newest checkpoint, to its end, or to a stop. Errors: those that
    end a run."""
    config = world.config()
    # Not `RunDirectory.create`: writing and reading the configuration as YAML would take most of a run's real time.
    for name in ("rollouts", "checkpoints"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    run = RunDirectory(folder)
    checkpoints = Checkpoints(run.checkpoints_path, config.checkpoint, warn=warnings.append)
    state = RunState(step=0, policy_version=0, stream=Stream().state(), ledger=LedgerState(), fingerprints=FINGERPRINTS)
    fleet = world.fleet()
    if checkpoints.exists():
        path, state = checkpoints.newest()
        await checkpoints.load_learners(fleet, path)
        run.rewind(state.step, state.log_sizes)
    stream: Any = Stream.restore(state.stream)
    reporter: Any = SimpleNamespace(
        warn=warnings.append, phase=lambda *_: None, step=lambda _: None, evaluation=lambda _: None
    )
    trackers: Any = SimpleNamespace(log=lambda *_: None)
    parts = RunParts(
        config=config,
        fleet=fleet,
        stream=stream,
        eval_prompts=(),
        canary_prompts=(prompt_of(0),),
        run=run,
        checkpoints=checkpoints,
        reporter=reporter,
        warn=warnings.append,
        trackers=trackers,
        start=state,
    )
    world.start_clocks()
    stop = asyncio.Event()
    if stop_after_s is not None:
        asyncio.get_running_loop().call_later(stop_after_s, stop.set)
    controller = Controller(parts, stop)
    try:
        summary = await controller.run()
    except Exception as error:
        run.write_summary(controller.summary("failed", str(error)))
        raise
    run.write_summary(summary)
    return summary
