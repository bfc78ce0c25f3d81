"""What a checkpoint keeps besides the learner's files: where the run stands. One JSON file, no pickle."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cluster.groups.ledger import LedgerState
from reward.types import ScoredGroup
from rollout.errors import CheckpointError
from rollout.prompts.stream import PromptStreamState
from rollout.types import Prompt

RUN_STATE = "run_state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprints:
    """What must be the same when a run goes on."""

    model: str
    tokenizer: str
    data: str
    group_size: int
    config: str
    """Of the whole configuration; a difference here alone is allowed, and recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """A run at the boundary between two training steps."""

    step: int
    """Training steps done."""
    policy_version: int
    stream: PromptStreamState
    ledger: LedgerState
    requeued: tuple[Prompt, ...] = ()
    """Prompts that were dispatched and not yet scored: they are sampled again, before new ones."""
    scored: tuple[ScoredGroup, ...] = ()
    """Groups scored and not yet trained on."""
    fingerprints: Fingerprints
    accuracy_before: float | None = None
    """Held-out pass@1 before the first step."""
    evaluated_at: int | None = None
    """Step of the newest evaluation."""
    accuracy: float | None = None
    """Its pass@1."""
    log_sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each log of the run directory at this point."""


_ADAPTER = TypeAdapter(RunState)


def write_run_state(directory: Path, state: RunState) -> None:
    text = json.dumps(dataclasses.asdict(state), indent=1)
    (directory / RUN_STATE).write_text(text + "\n", encoding="ascii")


def read_run_state(directory: Path) -> RunState:
    """Errors: `CheckpointError` for a file that is missing or of another version of the program."""
    path = directory / RUN_STATE
    try:
        return _ADAPTER.validate_python(json.loads(path.read_text(encoding="ascii")))
    except (OSError, ValueError, ValidationError) as error:
        raise CheckpointError(
            f"{path} cannot be read as the state of a run ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "use an older checkpoint or the version of Shoal that wrote it"
        ) from error
