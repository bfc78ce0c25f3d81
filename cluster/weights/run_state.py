"""What a checkpoint keeps besides the learner's files: where the run stands. A JSON file, and a Parquet file of the
groups that wait to be trained on; no pickle."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cluster.groups.ledger import LedgerState
from cluster.record.group_table import OpenGroup, read_groups, tables_of, write_tables
from cluster.types import GroupState
from reward.types import ScoredGroup
from rollout.errors import CheckpointError
from rollout.prompts.stream import PromptStreamState
from rollout.types import Prompt, RolloutGroup

RUN_STATE = "run_state.json"
WAITING = "waiting.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprints:
    """What must be the same when a run goes on."""

    model: str
    tokenizer: str
    data: str
    group_size: int
    config: str
    """Of the whole configuration; a difference here alone is allowed, and recorded."""
    teacher: str | None = None
    """As `FoundTeacher.fingerprint`; None in a checkpoint of before it was recorded."""


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
    """Groups scored and not yet trained on, in the order of dispatch. Not in the JSON file: in the one beside it."""
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
_PROMPT = TypeAdapter(Prompt)


def without_groups(state: RunState, lost: Collection[str]) -> RunState:
    """The state with these scored groups given back: their completions are gone, so they are sampled again."""
    kept = tuple(scored for scored in state.scored if scored.group_id not in lost)
    return _given_back(replace(state, scored=kept), [s.group.prompt for s in state.scored if s.group_id in lost])


def _given_back(state: RunState, prompts: Sequence[Prompt]) -> RunState:
    again = {prompt.group_id for prompt in prompts}
    open_groups = {
        group_id: (str(GroupState.PENDING), attempt) if group_id in again else (name, attempt)
        for group_id, (name, attempt) in state.ledger.open_groups.items()
    }
    return replace(state, requeued=(*state.requeued, *prompts), ledger=replace(state.ledger, open_groups=open_groups))


def write_run_state(directory: Path, state: RunState, waiting: Sequence[RolloutGroup] = ()) -> None:
    """`waiting` are the completions of `state.scored`, in the same order."""
    text = json.dumps(dataclasses.asdict(replace(state, scored=())), indent=1)
    (directory / RUN_STATE).write_text(text + "\n", encoding="ascii")
    if state.scored:
        opened = [OpenGroup(scored=s, group=g) for s, g in zip(state.scored, waiting, strict=True)]
        with (directory / WAITING).open("wb") as file:
            write_tables(file, tables_of(state.step, opened, waiting=True), waiting=True)


def read_run_state(directory: Path) -> RunState:
    """The state, with its waiting groups themselves as their payload.

    Errors: `CheckpointError` for a file that is missing or of another version of the program.
    """
    path = directory / RUN_STATE
    try:
        values = json.loads(path.read_text(encoding="ascii"))
        # Of a version that kept waiting groups in this file: their prompts are sampled again.
        before = values.pop("scored", None) or ()
        state: RunState = _ADAPTER.validate_python(values)
        if before:
            return _given_back(state, [_PROMPT.validate_python(scored["group"]["prompt"]) for scored in before])
        path = directory / WAITING
        waiting = read_groups(path) if path.exists() else []
        return replace(state, scored=tuple(group.scored for group in waiting))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise CheckpointError(
            f"{path} cannot be read as the state of a run ({type(error).__name__}: {str(error).splitlines()[0]}); "
            "use an older checkpoint or the version of Shoal that wrote it"
        ) from error
