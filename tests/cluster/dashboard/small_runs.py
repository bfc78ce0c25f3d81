"""A small run directory, made with the classes that make real ones, with numbers that a reader can check by hand.

Three steps of two groups with four completions each, two samplers, a held-out evaluation before and after, one group
that dynamic sampling rejected. `write_run` takes whatever is to be otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cluster.config import RunConfig
from cluster.configuration.loading import build_config
from cluster.dashboard.index.store import RunStore
from cluster.record.metrics import evaluation_metrics, step_metrics
from cluster.record.run_directory import RunDirectory
from cluster.record.run_record import TrainedStep
from cluster.types import Event, EventKind, GroupCounts, RunSummary, StepTimings
from learner.types import CompletionKey, ComputedTokens, StepOutput, TrainBatch
from reward.types import RewardOutcome, RewardResult, ScoredGroup
from rollout.types import Completion, FinishReason, Prompt, RolloutGroup, VersionSpan
from tests.cluster.examples import opened, scored_of

START_S = 1_700_000_000.0
STEP_S = 10.0
TOKENS = 4
"""Of a completion that is not said to be longer."""
PROMPT = (1, 2, 3)
QUESTIONS = ("What is 1 + 2?", "What is 2 + 2?")
TRUTHS = ("3", "4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A completion and its score."""

    text: str
    reward: float | None = 0.0
    correct: bool | None = None
    """None takes reward >= 1."""
    answer: str | None = None
    """None takes the last word."""
    num_tokens: int = TOKENS
    finish: FinishReason = FinishReason.STOP
    components: Mapping[str, float] | None = None
    """None takes {"math": reward}."""
    advantage: float | None = None
    """None takes the reward minus the group's mean."""


RIGHT = Sample(text="The answer is 3", reward=1.0)
WRONG = Sample(text="The answer is 5", reward=0.0)
CUT = Sample(text="The answer would", reward=0.0, num_tokens=8, finish=FinishReason.LENGTH)
FAILED = Sample(text="The answer is 7", reward=None)
MIXED = (RIGHT, WRONG, RIGHT, CUT)
"""Rewards 1, 0, 1, 0: mean 0.5, advantages +-0.5."""
EQUAL = (WRONG, WRONG, WRONG, WRONG)


def config(**changes: object) -> RunConfig:
    """A small configuration; `changes` are dotted keys with "__" for the dot."""
    values = {
        "task": {"kind": "reasoning_gym", "name": "sums", "generator": "basic_arithmetic", "size": 10},
        "model": {"path": "tiny:", "max_context_tokens": 64},
        "rollout": {"group_size": 4, "prompts_per_step": 2, "dtype": "float32", "sampling": {"max_tokens": 8}},
        "learner": {"dtype": "float32", "micro_batch_tokens": 256},
        "eval": {"sampling": {"max_tokens": 8}},
        "steps": 5,
    }
    overrides = [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    return build_config(values, overrides, source="a test")


def group(
    index: int,
    samples: Sequence[Sample] = MIXED,
    *,
    version: int = 0,
    epoch: int = 0,
    question: int = 0,
    worker: str = "sampler-0",
    started_s: float = START_S,
) -> ScoredGroup:
    """A scored group; `question` is a number of QUESTIONS, and also what the uid is made of."""
    prompt = Prompt(
        uid=f"{question:016x}",
        epoch=epoch,
        index=index,
        token_ids=PROMPT,
        text=f"<user>{QUESTIONS[question % 2]}",
        question=QUESTIONS[question % 2],
        ground_truth=TRUTHS[question % 2],
        task="sums",
    )
    completions = tuple(_completion(i, sample, version) for i, sample in enumerate(samples))
    sampled = RolloutGroup(
        prompt=prompt,
        completions=completions,
        attempt=1,
        worker=worker,
        started_s=started_s,
        finished_s=started_s + 2.0,
    )
    rewards = [_result(sample) for sample in samples]
    return scored_of(sampled, rewards, started_s=started_s + 2.0, finished_s=started_s + 2.5)


def learned(
    groups: Sequence[ScoredGroup], samples: Sequence[Sequence[Sample]]
) -> tuple[dict[CompletionKey, float | None], ComputedTokens]:
    """What a learner would say: advantage = reward - mean (not scaled), log p a tenth above the sampler's, which it
    computes only where the advantage is not 0."""
    advantages: dict[CompletionKey, float | None] = {}
    computed: dict[CompletionKey, Completion] = {}
    for scored, group_samples in zip(groups, samples, strict=True):
        rewards = [sample.reward for sample in group_samples if sample.reward is not None]
        mean = sum(rewards) / len(rewards) if rewards else 0.0
        for completion, sample in zip(scored.group.payload.completions, group_samples, strict=True):
            advantage = sample.advantage
            if advantage is None and sample.reward is not None:
                advantage = sample.reward - mean
            key = (scored.group_id, completion.sample_index)
            advantages[key] = advantage
            if advantage:
                computed[key] = completion
    nothing = np.zeros(0, np.float32)
    tokens = ComputedTokens(
        keys=tuple(computed),
        lengths=tuple(completion.num_tokens for completion in computed.values()),
        policy_logprobs_N=np.concatenate([nothing, *(c.logprobs + np.float32(0.1) for c in computed.values())]),
        ref_logprobs_N=nothing,
        entropies_N=nothing,
    )
    return advantages, tokens


def size(tokens: ComputedTokens) -> dict[str, float]:
    """The learner's metric of what it computed, prompts included."""
    return {"train/sequence_tokens": float(sum(tokens.lengths) + len(PROMPT) * len(tokens.lengths))}


def trained_step(batch: TrainBatch, samples: Sequence[Sequence[Sample]], output: StepOutput) -> TrainedStep:
    advantages, tokens = learned(batch.groups, samples)
    output = replace(output, metrics={**output.metrics, **size(tokens)})
    return TrainedStep(
        batch=batch,
        groups=tuple(scored.group.payload for scored in batch.groups),
        advantages=advantages,
        outputs=(output,),
        tokens=(tokens,),
    )


def write_step(
    run: RunDirectory,
    step: int,
    samples: Sequence[Sequence[Sample]] = (MIXED, MIXED),
    *,
    metrics: Mapping[str, float] | None = None,
    num_rejected: int = 0,
    skipped: bool = False,
    epoch: int | None = None,
) -> list[ScoredGroup]:
    """One training step on record: rollouts, events, ledger, metrics. `num_rejected` groups were rejected so far."""
    start_s = START_S + STEP_S * step
    first = step * len(samples)
    groups = [
        group(
            first + i,
            group_samples,
            version=step,
            epoch=step if epoch is None else epoch,
            question=i,
            worker=f"sampler-{i % 2}",
            started_s=start_s,
        )
        for i, group_samples in enumerate(samples)
    ]
    for scored in groups:
        _write_life(run, scored, step)
    run.append_event(Event(kind=EventKind.TRAIN, actor="learner-0", start_s=start_s + 3, end_s=start_s + 7, step=step))
    extra = {"policy_version": step + 1, "bytes": 1024}
    run.append_event(
        Event(kind=EventKind.SYNC, actor="sampler-0", start_s=start_s + 7, end_s=start_s + 8, step=step, extra=extra)
    )
    advantages, tokens = learned(groups, samples)
    run.write_rollouts(step, [opened(scored) for scored in groups], advantages, tokens.by_completion())
    learner = {"grad_norm": 1.0, "entropy": 2.0 - 0.5 * step, "kl_rollout": 1e-6, "max_abs_log_ratio": 1e-4, "lr": 1e-3}
    ratio = {"ratio_mean": 1.0, "ratio_std": 0.0, "effective_sample_size": 1.0}
    clip = {"clip_fraction": 0.0, "clip_fraction_low": 0.0, "clip_fraction_high": 0.0}
    output = StepOutput(
        step=step,
        policy_version=step + 1,
        skipped=skipped,
        bad_steps_in_a_row=int(skipped),
        metrics={**learner, **ratio, **clip, **size(tokens), **(metrics or {})},
    )
    done = first + len(samples)
    timings = StepTimings(step_s=STEP_S, generate_s=2.0, score_s=0.5, train_s=4.0, sync_s=1.0, wait_s=3.0)
    counts = GroupCounts(
        dispatched=done + num_rejected, trained=done, in_flight=0, rejected={"equal_rewards": num_rejected}
    )
    run.append_metrics(step, step_metrics(groups, output, timings=timings, counts=counts, policy_version=step))
    return groups


def write_evaluation(run: RunDirectory, step: int, samples: Sequence[Sample] = MIXED) -> None:
    groups = [group(1000, samples, version=step, question=7, started_s=START_S + STEP_S * step)]
    run.append_evaluation(step, evaluation_metrics(groups))
    run.write_eval_rollouts(step, [opened(scored) for scored in groups])


def write_run(path: Path, *, num_steps: int = 3, finished: bool = True, **changes: object) -> RunDirectory:
    """The run of the file's header. `changes` are those of `config`."""
    run = RunDirectory.create(path, config(**changes))
    write_evaluation(run, 0)
    for step in range(num_steps):
        write_step(run, step, (MIXED, MIXED) if step else (MIXED, EQUAL), num_rejected=int(step >= 1))
    if num_steps > 1:
        write_rejected(run, "009999-00000000000000ff", "equal_rewards", time_s=START_S + STEP_S)
    if finished:
        write_evaluation(run, num_steps, (RIGHT, RIGHT, RIGHT, WRONG))
        run.write_summary(
            RunSummary(
                status="finished",
                num_steps=num_steps,
                policy_version=num_steps,
                weights_digest="",
                accuracy_before=0.5,
                accuracy_after=0.75,
                wall_s=STEP_S * num_steps,
                groups_dispatched=2 * num_steps + int(num_steps > 1),
                groups_trained=2 * num_steps,
                groups_rejected={"equal_rewards": int(num_steps > 1)},
            )
        )
    return run


def write_rejected(run: RunDirectory, group_id: str, reason: str, *, time_s: float) -> None:
    """The life of a group that was not trained on."""
    line = {"group_id": group_id, "attempt": 1}
    run.append_ledger({"time_s": time_s, **line, "state": "leased", "worker": "sampler-0"})
    run.append_ledger({"time_s": time_s + 2, **line, "state": "sampled", "policy_version": 0})
    run.append_ledger({"time_s": time_s + 3, **line, "state": "scored"})
    run.append_ledger({"time_s": time_s + 3, **line, "state": "rejected", "reason": reason})


def open_store(path: Path) -> RunStore:
    """Everything read."""
    store = RunStore(path)
    store.refresh()
    return store


def _write_life(run: RunDirectory, scored: ScoredGroup, step: int) -> None:
    sampled, scores, group_id = scored.group.facts, scored.scores, scored.group_id
    run.append_event(
        Event(
            kind=EventKind.GENERATE,
            actor=sampled.worker,
            start_s=sampled.started_s,
            end_s=sampled.finished_s,
            ids=(group_id,),
            extra={"tokens": sampled.num_tokens, "policy_version": sampled.min_policy_version},
        )
    )
    run.append_event(
        Event(
            kind=EventKind.SCORE, actor="reward-0", start_s=scores.started_s, end_s=scores.finished_s, ids=(group_id,)
        )
    )
    line = {"group_id": group_id, "attempt": 1}
    run.append_ledger({"time_s": sampled.started_s, **line, "state": "leased", "worker": sampled.worker})
    run.append_ledger({"time_s": sampled.finished_s, **line, "state": "sampled", "policy_version": step})
    run.append_ledger({"time_s": scores.finished_s, **line, "state": "scored"})
    run.append_ledger({"time_s": scores.finished_s + 5, **line, "state": "consumed", "step": step})


def _completion(index: int, sample: Sample, version: int) -> Completion:
    return Completion(
        sample_index=index,
        token_ids=np.arange(10, 10 + sample.num_tokens, dtype=np.int32),
        logprobs=np.full(sample.num_tokens, -0.5, np.float32),
        loss_mask=np.ones(sample.num_tokens, np.bool_),
        text=sample.text,
        finish_reason=sample.finish,
        version_spans=(VersionSpan(policy_version=version, start=0, end=sample.num_tokens),),
    )


def _result(sample: Sample) -> RewardResult:
    if sample.reward is None:
        return RewardResult(outcome=RewardOutcome.TIMEOUT, reward=None, detail="took too long", duration_s=5.0)
    correct = sample.reward >= 1 if sample.correct is None else sample.correct
    return RewardResult(
        outcome=RewardOutcome.OK,
        reward=sample.reward,
        components={"math": sample.reward} if sample.components is None else sample.components,
        correct=correct,
        answer=sample.text.split()[-1] if sample.answer is None else sample.answer,
        duration_s=0.25,
    )
