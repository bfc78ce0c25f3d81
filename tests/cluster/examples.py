"""Small groups with numbers that a reader can check by hand."""

from collections.abc import Mapping, Sequence

from learner.types import SequenceOutput, StepOutput
from reward.types import RewardOutcome, RewardResult, ScoredGroup
from rollout.types import Completion, FinishReason, Prompt, RolloutGroup, VersionSpan


def completion(
    sample_index: int,
    *,
    num_tokens: int = 2,
    version: int = 0,
    text: str = "3",
    finish: FinishReason = FinishReason.STOP,
) -> Completion:
    return Completion(
        sample_index=sample_index,
        token_ids=tuple(range(10, 10 + num_tokens)),
        logprobs=(-0.5,) * num_tokens,
        loss_mask=(True,) * num_tokens,
        text=text,
        finish_reason=finish,
        version_spans=(VersionSpan(policy_version=version, start=0, end=num_tokens),),
    )


def ok(reward: float) -> RewardResult:
    return RewardResult(
        outcome=RewardOutcome.OK, reward=reward, components={"math": reward}, correct=reward >= 1, duration_s=0.25
    )


def failed(outcome: RewardOutcome = RewardOutcome.TIMEOUT) -> RewardResult:
    return RewardResult(outcome=outcome, reward=None, detail="took too long")


def scored(
    index: int, rewards: Sequence[RewardResult], completions: Sequence[Completion] | None = None, *, text: str = "1 + 2"
) -> ScoredGroup:
    prompt = Prompt(
        uid="5f1c09be12aa03d4",
        epoch=0,
        index=index,
        token_ids=(1, 2, 3),
        text=text,
        question=text,
        ground_truth="3",
        task="sums",
    )
    samples = tuple(completions) if completions is not None else tuple(completion(i) for i in range(len(rewards)))
    group = RolloutGroup(
        prompt=prompt, completions=samples, attempt=1, worker="sampler-0", started_s=100.0, finished_s=102.0
    )
    return ScoredGroup(group=group, rewards=tuple(rewards), worker="reward-0", started_s=102.0, finished_s=102.5)


def output_of(group: ScoredGroup, sample_index: int, advantage: float) -> SequenceOutput:
    return SequenceOutput(
        group_id=group.group_id,
        sample_index=sample_index,
        advantage=advantage,
        policy_logprobs=(-0.5, -0.25),
        ref_logprobs=(-1.0, -2.0),
    )


def step_output(step: int = 0, metrics: Mapping[str, float] | None = None) -> StepOutput:
    return StepOutput(
        step=step, policy_version=step + 1, skipped=False, bad_steps_in_a_row=0, metrics=metrics if metrics else {}
    )
