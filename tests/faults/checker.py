"""What must hold of every run directory, whatever happened: read from its journal, events and rollouts alone.

I1  every group that was trained on was consumed exactly once, and a finished run has a checkpoint that holds all
I2  its G samples are from one attempt, the one that was consumed, and each has a reward or says why not
I3  token ids sampled are token ids trained (where the test knows what was sampled)
I4  policy lag is within its bound
I5  versions of a sampler only rise, and it samples from none that a verified sync did not give it
I6  dispatched = trained + rejected + in flight, in the journal, in the metrics and in the summary
I7  nothing half-written is left
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet

from cluster.config import RunConfig
from cluster.groups.ledger import NEXT_STATES
from cluster.record.episode_text import episode_of
from cluster.record.run_directory import RunDirectory
from cluster.types import GroupState
from learner.saving.files import UNFINISHED_PREFIX

Sampled = Mapping[tuple[str, int], Sequence[tuple[int, ...]]]
"""(group id, attempt) -> token ids of each completion, as the engine sampled them."""
ROW_COLUMNS = (
    *("group_id", "sample_index", "attempt", "worker", "token_ids", "reward", "outcome", "rejected"),
    *("min_policy_version", "max_policy_version", "episode"),
)


@dataclass(slots=True, kw_only=True)
class _Life:
    """A group as the journal tells it."""

    state: GroupState | None = None
    attempt: int = 0
    workers: dict[int, str] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)


def check_run(path: Path, *, config: RunConfig | None = None, sampled: Sampled | None = None) -> list[str]:
    """A sentence for each violation; none for a run in order. The run may have failed, but must not be live. `config`
    is read from the run unless it is given."""
    run = RunDirectory(path)
    config, events = config or run.read_config(), run.read_log("events")
    problems: list[str] = []
    lives, committed = _read_ledger(run.read_log("ledger"), problems, resumed=(path / "superseded").exists())
    tables = {
        int(file.stem.split("-")[1]): pyarrow.parquet.read_table(
            file, columns=list(ROW_COLUMNS), use_threads=False
        ).to_pylist()
        for file in sorted((path / "rollouts").glob("step-*.parquet"))
    }
    metrics = run.read_log("metrics")
    _check_trained_once(run, lives, tables, committed, config.steps, problems)
    _check_groups(config, lives, tables, sampled, problems)
    _check_lag(config, metrics, tables, problems)
    _check_versions(events, problems)
    _check_sums(run, lives, metrics, problems)
    left = [p.name for p in path.rglob("*") if p.name.endswith(".tmp") or p.name.startswith(UNFINISHED_PREFIX)]
    problems += [f"I7: {name} was left behind" for name in left]
    return problems


def _read_ledger(
    lines: Sequence[Mapping[str, Any]], problems: list[str], *, resumed: bool
) -> tuple[dict[str, _Life], list[int]]:
    """(life of each group, steps of the checkpoints)."""
    lives: dict[str, _Life] = defaultdict(_Life)
    committed: list[int] = []
    for line in lines:
        if line.get("event") == "committed":
            committed.append(line["step"])
        if "state" not in line:
            continue
        group_id, to, attempt = line["group_id"], GroupState(line["state"]), line["attempt"]
        life = lives[group_id]
        # A resumed run leases anew what the stopped one was still sampling: no line says that it was given back.
        leased_anew = resumed and to is GroupState.LEASED and life.state in (GroupState.LEASED, GroupState.SAMPLED)
        allowed = NEXT_STATES[life.state] if life.state is not None else (GroupState.LEASED,)
        if to not in allowed and not leased_anew:
            problems.append(f"I1: group {group_id} became {to} while it was {life.state}")
        expected = life.attempt + 1 if to is GroupState.LEASED else life.attempt
        if attempt != expected:
            problems.append(f"I2: group {group_id} became {to} by attempt {attempt}, expected {expected}")
        life.state, life.attempt = to, attempt
        if to is GroupState.LEASED:
            life.workers[attempt] = line["worker"]
        if to is GroupState.CONSUMED:
            life.steps.append(line["step"])
    return dict(lives), committed


def _check_trained_once(
    run: RunDirectory,
    lives: Mapping[str, _Life],
    tables: Mapping[int, Sequence[Mapping[str, Any]]],
    committed: Sequence[int],
    num_steps: int,
    problems: list[str],
) -> None:
    by_step: dict[int, list[str]] = defaultdict(list)
    for group_id, life in lives.items():
        if len(life.steps) > 1:
            problems.append(f"I1: group {group_id} was trained on in steps {life.steps}")
        for step in life.steps:
            by_step[step].append(group_id)
    for step, rows in tables.items():
        trained = {row["group_id"] for row in rows if not row["rejected"]}
        if trained != set(by_step[step]):
            problems.append(f"I1: step {step} has rollouts of {sorted(trained)}, the journal {sorted(by_step[step])}")
    summary = run.read_summary()
    if summary is None or summary.status != "finished":
        return
    if set(tables) != set(range(num_steps)) or summary.num_steps != num_steps:
        problems.append(f"I1: finished, with rollouts of steps {sorted(tables)} of {num_steps}")
    if num_steps not in committed:
        problems.append(f"I1: finished, but no checkpoint holds step {num_steps}: {list(committed)}")


def _check_groups(
    config: RunConfig,
    lives: Mapping[str, _Life],
    tables: Mapping[int, Sequence[Mapping[str, Any]]],
    sampled: Sampled | None,
    problems: list[str],
) -> None:
    for step, rows in tables.items():
        groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in rows:
            groups[row["group_id"]].append(row)
        for group_id, samples in groups.items():
            where = f"group {group_id} of step {step}"
            if [row["sample_index"] for row in samples] != list(range(config.rollout.group_size)):
                problems.append(f"I2: {where} has samples {[row['sample_index'] for row in samples]}")
            life = lives.get(group_id, _Life())
            for row in samples:
                if row["attempt"] != life.attempt or row["worker"] != life.workers.get(row["attempt"]):
                    problems.append(
                        f"I2: {where} is of attempt {row['attempt']} by {row['worker']}, the journal says attempt "
                        f"{life.attempt} by {life.workers.get(life.attempt)}"
                    )
                if (row["reward"] is None) != (row["outcome"] != "ok"):
                    problems.append(f"I2: {where} has outcome {row['outcome']} and reward {row['reward']}")
            if sampled is not None:
                trained = [_trained_tokens(row) for row in samples]
                if trained != list(sampled.get((group_id, samples[0]["attempt"]), ())):
                    problems.append(f"I3: {where} was trained on other tokens than were sampled")


def _trained_tokens(row: Mapping[str, Any]) -> tuple[int, ...]:
    """Those that an engine sampled: of an episode its replies, one behind the other."""
    episode, token_ids = episode_of(row["episode"]), row["token_ids"]
    if episode is None:
        return tuple(token_ids)
    return tuple(token for turn in episode.turns for token in token_ids[turn.start : turn.end])


def _check_lag(
    config: RunConfig,
    metrics: Sequence[Mapping[str, Any]],
    tables: Mapping[int, Sequence[Mapping[str, Any]]],
    problems: list[str],
) -> None:
    if [line["step"] for line in metrics] != list(range(len(metrics))):
        problems.append(f"I1: metrics have steps {[line['step'] for line in metrics]}")
    version = 0
    for line in metrics:
        for row in tables.get(line["step"], ()):
            lag = version - row["min_policy_version"] if row["min_policy_version"] is not None else 0
            if not row["rejected"] and not 0 <= lag <= config.max_policy_lag:
                problems.append(f"I4: group {row['group_id']} of step {line['step']} has lag {lag}")
            mixed = row["min_policy_version"] != row["max_policy_version"]
            if mixed and config.rollout.on_weight_sync == "drain":
                problems.append(f"I5: group {row['group_id']} of step {line['step']} mixes versions")
        version += not line.get("train/skipped")


def _check_versions(events: Sequence[Mapping[str, Any]], problems: list[str]) -> None:
    synced: dict[str, set[int]] = defaultdict(set)
    newest: dict[str, int] = {}
    for event in events:
        actor, extra = event["actor"], event["extra"]
        if event["kind"] == "sync" and "policy_version" in extra:
            version = extra["policy_version"]
            if version < newest.get(actor, 0):
                problems.append(f"I5: {actor} went from version {newest[actor]} back to {version}")
            newest[actor] = version
            synced[actor].add(version)
        if event["kind"] == "generate" and extra.get("policy_version") not in synced[actor]:
            problems.append(f"I5: {actor} sampled {event['ids']} from version {extra.get('policy_version')}, unsynced")


def _check_sums(
    run: RunDirectory, lives: Mapping[str, _Life], metrics: Sequence[Mapping[str, Any]], problems: list[str]
) -> None:
    states = Counter(life.state for life in lives.values())
    trained, rejected = states[GroupState.CONSUMED], states[GroupState.REJECTED]
    summary = run.read_summary()
    if summary is not None:
        told = (summary.groups_dispatched, summary.groups_trained, sum(summary.groups_rejected.values()))
        if told != (len(lives), trained, rejected):
            problems.append(f"I6: the summary says {told}, the journal {(len(lives), trained, rejected)}")
        if summary.unaccounted_groups():
            problems.append(f"I6: {summary.unaccounted_groups()} groups of the summary are unaccounted for")
    for line in metrics:
        counts = {name: value for name, value in line.items() if name.startswith("groups/")}
        parts = ("groups/trained", "groups/rejected", "groups/in_flight")
        if counts and counts["groups/dispatched"] != sum(counts[name] for name in parts):
            problems.append(f"I6: step {line['step']} does not balance: {counts}")
