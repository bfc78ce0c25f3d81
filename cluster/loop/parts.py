"""What a run is made of before its loop begins."""

from collections.abc import Callable
from dataclasses import dataclass

from cluster.config import RunConfig
from cluster.fleet.actors import Fleet
from cluster.record.reporter import Reporter
from cluster.record.run_directory import RunDirectory
from cluster.record.trackers import Trackers
from cluster.weights.checkpointing import Checkpoints
from cluster.weights.run_state import RunState
from rollout.prompts.stream import PromptStream
from rollout.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """What a controller is given; `cluster.commands.train` makes it."""

    config: RunConfig
    fleet: Fleet
    stream: PromptStream
    eval_prompts: tuple[Prompt, ...]
    canary_prompts: tuple[Prompt, ...]
    """What each sync is verified with."""
    run: RunDirectory
    checkpoints: Checkpoints
    reporter: Reporter
    warn: Callable[[str], None]
    """Says something to the person and to the record."""
    trackers: Trackers
    start: RunState
    """Where to begin: a checkpoint's state, or that of a new run."""
