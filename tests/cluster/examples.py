"""Small groups with numbers that a reader can check by hand."""

from collections.abc import Mapping, Sequence

import numpy as np

from cluster.record.group_table import OpenGroup
from learner.types import StepOutput, TokenValues
from reward.types import GroupScores, RewardOutcome, RewardResult, ScoredGroup
from rollout.episode_types import EpisodeFacts, SpokenMessage, SpokenTurn, TurnSpan
from rollout.types import Completion, FinishReason, Prompt, RolloutGroup, SampledGroup, VersionSpan, facts_of, read_only


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
        token_ids=read_only(tuple(range(10, 10 + num_tokens)), np.int32),
        logprobs=read_only((-0.5,) * num_tokens, np.float32),
        loss_mask=read_only((True,) * num_tokens, np.bool_),
        text=text,
        finish_reason=finish,
        version_spans=(VersionSpan(policy_version=version, start=0, end=num_tokens),),
    )


def episode_completion(sample_index: int = 0) -> Completion:
    """Ten tokens of three turns, two of which the world answered:

    token     20 21 22 23 | 90 91 | 20 | 90 91 | 24
    log p     -1 -2 -1 -2 |       | -3 |       | -3     12 nats over 6 sampled tokens
    """
    turns = (
        TurnSpan(start=0, end=4, fed="f0", finish="stop"),
        TurnSpan(start=6, end=7, fed="f1", finish="stop"),
        TurnSpan(start=9, end=10, fed="f2", finish="length"),
    )
    lower = SpokenMessage(role="user", text="lower")
    return Completion(
        sample_index=sample_index,
        token_ids=read_only((20, 21, 22, 23, 90, 91, 20, 90, 91, 24), np.int32),
        logprobs=read_only((-1, -2, -1, -2, 0, 0, -3, 0, 0, -3), np.float32),
        loss_mask=read_only((1, 1, 1, 1, 0, 0, 1, 0, 0, 1), np.bool_),
        text="fifty lower 25 lower 12",
        finish_reason=FinishReason.LENGTH,
        version_spans=(VersionSpan(policy_version=0, start=0, end=10),),
        episode=EpisodeFacts(
            outcome="turns",
            turns=turns,
            spoken=(
                SpokenTurn(text="fifty", heard=(lower,)),
                SpokenTurn(
                    text="25", calls=(("ask", '{"n": 25}'),), heard=(SpokenMessage(role="tool", text="no", name="ask"),)
                ),
                SpokenTurn(text="12"),
            ),
            scores={"won": 0.0, "tries": 3.0},
            num_tool_calls=1,
            num_attempts=2,
            seconds=2.0,
            world_s=0.5,
        ),
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
    return scored_of(group, rewards)


def scored_of(
    group: RolloutGroup,
    rewards: Sequence[RewardResult],
    *,
    worker: str = "reward-0",
    started_s: float = 102.0,
    finished_s: float = 102.5,
) -> ScoredGroup:
    """As the controller would have it, with the group itself in place of a reference."""
    scores = GroupScores(rewards=tuple(rewards), worker=worker, started_s=started_s, finished_s=finished_s)
    return ScoredGroup(group=sampled_of(group), scores=scores)


def sampled_of(group: RolloutGroup) -> SampledGroup:
    return SampledGroup(prompt=group.prompt, facts=facts_of(group), payload=group)


def opened(group: ScoredGroup, rejected: str = "") -> OpenGroup:
    """With its completions, which `scored_of` left in the place of the reference."""
    return OpenGroup(scored=group, group=group.group.payload, rejected=rejected)


def values_of(
    policy_logprobs: Sequence[float], ref_logprobs: Sequence[float] = (), entropies: Sequence[float] = ()
) -> TokenValues:
    """What the learner computed for one completion."""
    return TokenValues(
        policy_logprobs=np.array(policy_logprobs, np.float32),
        ref_logprobs=np.array(ref_logprobs, np.float32),
        entropies=np.array(entropies, np.float32),
    )


def step_output(step: int = 0, metrics: Mapping[str, float] | None = None) -> StepOutput:
    return StepOutput(
        step=step, policy_version=step + 1, skipped=False, bad_steps_in_a_row=0, metrics=metrics if metrics else {}
    )
