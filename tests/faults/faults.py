"""What goes wrong in a run of a fault test, and where: `Faults.at("sampler", 0, step=2, event="serving").do("kill")`.

The fault happens inside the run: `tests.faults.program` is a `shoal` that strikes when it comes to the named point, so
that the victim is in the state that is meant. What was struck is in a file beside the run, which every test reads.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rollout.engines.outputs import is_reply, parse_request_id
from tests.faults.checker import check_run
from tests.integration import runs

SHORT = ("steps=6", "rollout.prompts_per_step=4", "eval.at_start=false", "eval.at_end=false")
"""Words of a deterministic run of `tiny` in which every stage of a step comes six times."""
NUM_GROUPS = 24

Role = Literal["sampler", "learner", "reward", "job", "checkpoint"]
Action = Literal[
    "kill",
    "lose_node",  # all processes of the node, other than the head, on which a group was sampled last; "generated"
    "hang",
    "raise",
    "corrupt",
    "slow",
    "no_space",
]
Event = Literal[
    "serving",  # a sampler has a batch of training prompts
    "idle",  # between two stages: the samplers hold nothing, and the learner waits
    "syncing",  # weights are on their way: engines have begun an update
    "training",  # the learner is in a training step
    "scoring",  # a reward worker has a group
    "generated",  # a group was sampled
    "scored",  # all groups of a step were scored
    "trained",  # a training step was taken, and nothing of it is on record
    "before_sync",
    "after_sync",
    "record",  # the rollouts of a step are written, its metrics are not
    "saving",  # the learner's files of a checkpoint are written, its manifest is not
    "saved",  # a checkpoint has its final name
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, once."""

    role: Role
    index: int
    step: int
    """Training steps that the run counts as done at the event: 2 for "serving" the groups of the third step."""
    event: Event
    action: Action

    @property
    def victim(self) -> str:
        return f"{self.role}-{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a fault happens."""

    role: Role
    index: int
    step: int
    event: Event

    def do(self, action: Action) -> Fault:
        return Fault(role=self.role, index=self.index, step=self.step, event=self.event, action=action)


class Faults:
    """Where the sentence begins."""

    @staticmethod
    def at(role: Role, index: int = 0, *, step: int, event: Event) -> Place:
        return Place(role=role, index=index, step=step, event=event)


NODE, HEAD = "SHOAL_TEST_NODE", "head"
"""Environment variable with the name of the node that a process is on, where a test made several on this machine; and
the name of the first."""


def record_path(run: Path) -> Path:
    """The file of the faults that happened to a run."""
    return run.parent / f"{run.name}.faults.jsonl"


def sampled_path(run: Path) -> Path:
    """The file of what the engines of a run sampled, written by the samplers themselves."""
    return run.parent / f"{run.name}.sampled.jsonl"


def start(path: Path, faults: Fault | Sequence[Fault], *words: str, cluster: str | None = None) -> runs.Run:
    """`shoal train WORDS --run-dir PATH`, to which one fault happens, or several, or none; on a `cluster` or alone."""
    several = [faults] if isinstance(faults, Fault) else faults
    files = {"record": str(record_path(path)), "sampled": str(sampled_path(path))}
    spec = json.dumps({"faults": [asdict(fault) for fault in several], **files})
    return runs.start(path, spec, "train", *words, module="tests.faults.program", cluster=cluster)


def resume(path: Path, *words: str) -> runs.Run:
    """`shoal train --resume PATH WORDS` to its end, which is exit code 0 with no process left."""
    run = start(path, (), "--resume", str(path), *words)
    assert run.wait() == 0, run.output()
    assert run.left_behind() == []
    return run


def copy(run: Path, path: Path) -> None:
    """A run that has ended, with what its engines sampled."""
    shutil.copytree(run, path)
    shutil.copy(sampled_path(run), sampled_path(path))


def sampled(path: Path) -> dict[tuple[str, int], list[tuple[int, ...]]]:
    """(group id, attempt) -> token ids of each completion, as its engine gave them out last: a resumed run may sample
    again what the one before it lost. Of an episode the replies, one behind the other."""
    groups: dict[tuple[str, int], dict[int, dict[int, tuple[int, ...]]]] = {}
    for line in runs.read_lines(sampled_path(path)):
        request_id = line["request_id"]
        (purpose, group_id, attempt), sample_index = parse_request_id(request_id)
        turn = int(request_id.rpartition("|")[2]) if is_reply(request_id) else 1
        if purpose == "train":
            replies = groups.setdefault((group_id, attempt), {}).setdefault(sample_index, {})
            if turn == 1:
                replies.clear()
            replies[turn] = tuple(line["token_ids"])
    return {
        key: [tuple(token for turn in sorted(of[i]) for token in of[i][turn]) for i in sorted(of)]
        for key, of in groups.items()
    }


def struck(path: Path) -> dict[str, Any]:
    """The fault that happened to the run: its place, and the process that was struck, which is gone after a kill."""
    happened = all_struck(path)
    assert len(happened) == 1, f"the fault happened {len(happened)} times"
    return happened[0]


def all_struck(path: Path) -> list[dict[str, Any]]:
    """As `struck`, of a run with several faults."""
    happened = runs.read_lines(record_path(path))
    for one in happened:
        assert one["action"] not in ("kill", "lose_node") or not is_alive(one["pid"]), "the victim is gone"
    return happened


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        # Ended and not yet waited for.
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def states(path: Path, actor: str) -> list[str]:
    """The states that an actor came to, in their order."""
    return [event["extra"]["state"] for event in transitions(path, actor)]


def transitions(path: Path, actor: str) -> list[dict[str, Any]]:
    return [e for e in instants(path, "state") if e["actor"] == actor]


def instants(path: Path, name: str) -> list[dict[str, Any]]:
    events = runs.read_lines(path / "events.jsonl")
    return [e for e in events if e["kind"] == "instant" and e["extra"].get("name") == name]


def ledger(path: Path, state: str) -> list[dict[str, Any]]:
    """The lines of the ledger that tell of groups that came to `state`."""
    return [line for line in runs.read_lines(path / "ledger.jsonl") if line.get("state") == state]


def assert_exactly_once(path: Path, *, num_groups: int = NUM_GROUPS) -> None:
    """The checker finds nothing, no file has the planted secret, and `num_groups` groups were trained on, each once."""
    assert check_run(path, sampled=sampled(path)) == []
    files = [file for file in path.rglob("*") if file.is_file()]
    assert [file for file in files if runs.SECRET.encode() in file.read_bytes()] == []
    consumed = [line["group_id"] for line in ledger(path, "consumed")]
    assert len(consumed) == len(set(consumed)) == runs.summary(path)["groups_trained"] == num_groups


def assert_same_end(path: Path, undisturbed: Path) -> None:
    """The run ended where the undisturbed one did, to the last bit."""
    disturbed, whole = runs.summary(path), runs.summary(undisturbed)
    assert disturbed["weights_digest"] == whole["weights_digest"]
    for name in ("status", "num_steps", "policy_version", "groups_trained"):
        assert disturbed[name] == whole[name], name
