"""Every shipped objective teaches a policy that is a table: advantages, plan, corrections and loss as the learner has
them, with sampling, rewards and Adam in a few lines.

Dimensions: P prompts, T places of a completion, V tokens, N tokens of a mini-batch.
"""

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from cluster.configuration.loading import list_objectives, load_config
from learner.algorithm.advantages import estimator_of
from learner.algorithm.corrections import correct
from learner.algorithm.kl import estimated_kl
from learner.algorithm.loss import Loss, anchor_of
from learner.algorithm.plan import PlanSettings, plan_step
from learner.algorithm.tokens import TokenValues
from learner.types import StepPlan, TrainBatch, TrainSequence
from reward.types import RewardOutcome, RewardResult, ScoredGroup, StepReward
from rollout.types import Completion, FinishReason, Prompt, RolloutGroup, VersionSpan
from tests.learner.samples import groups_of, scored_of

P, T, V, G = 6, 3, 5, 8
END = 0
RIGHT = [1 + prompt % (V - 1) for prompt in range(P)]
"""The first token that is right, of each prompt; 1 to V - 1."""
STEPS = 40


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors of some hundred numbers: two threads would wait for each other, and for whoever else has the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TablePolicy:
    """A distribution for each prompt and place, whatever stands before it."""

    def __init__(self, seed: int) -> None:
        self.logits_PTV = 0.3 * torch.randn(P, T, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.logits_PTV.requires_grad_()

    def logprobs(self, prompt: int, token_ids: list[int]) -> Tensor:
        """[T] of the tokens of a completion."""
        logprobs_TV = torch.log_softmax(self.logits_PTV[prompt, : len(token_ids)], dim=-1)
        return logprobs_TV.gather(1, torch.tensor(token_ids)[:, None]).squeeze(1)

    def accuracy(self) -> float:
        """Probability that the first token is right, over the prompts."""
        first_PV = torch.softmax(self.logits_PTV[:, 0], dim=-1).detach()
        return float(np.mean([first_PV[prompt, RIGHT[prompt]] for prompt in range(P)]))


def sampled(policy: TablePolicy, step: int, prompt: int, rng: random.Random) -> ScoredGroup:
    """A group; its one step ends at the first token."""
    completions, results = [], []
    for index in range(G):
        token_ids: list[int] = []
        while len(token_ids) < T and (not token_ids or token_ids[-1] != END):
            weights = torch.softmax(policy.logits_PTV[prompt, len(token_ids)], dim=-1).tolist()
            token_ids.append(rng.choices(range(V), weights)[0])
        completions.append(
            Completion(
                sample_index=index,
                token_ids=token_ids,  # type: ignore[arg-type]
                logprobs=policy.logprobs(prompt, token_ids).detach().numpy(),
                loss_mask=[True] * len(token_ids),  # type: ignore[arg-type]
                text="",
                finish_reason=FinishReason.STOP,
                version_spans=(VersionSpan(policy_version=step, start=0, end=len(token_ids)),),
            )
        )
        reward = float(token_ids[0] == RIGHT[prompt])
        steps = (StepReward(end=1, reward=reward),)
        results.append(RewardResult(outcome=RewardOutcome.OK, reward=reward, components={"math": reward}, steps=steps))
    asked = Prompt(
        uid=f"{prompt:016x}", epoch=step, index=P * step + prompt, token_ids=(1,), text="", question="",
        ground_truth=None, task="toy",
    )  # fmt: skip
    group = RolloutGroup(
        prompt=asked, completions=tuple(completions), attempt=1, worker="s", started_s=0.0, finished_s=1.0
    )
    return scored_of(group, results)


class Learner:
    """What a rank does with a plan, for a policy that needs no micro-batches."""

    def __init__(self, policy: TablePolicy, settings: PlanSettings) -> None:
        self.policy, self.settings = policy, settings
        self.objective = settings.learner.objective
        self.reference = TablePolicy(0)
        self.reference.logits_PTV = policy.logits_PTV.detach().clone()
        self.loss = Loss(self.objective)
        self.adam = torch.optim.Adam([policy.logits_PTV], lr=0.05)

    def step(self, batch: TrainBatch) -> None:
        """All optimizer steps on a batch."""
        plan, groups = plan_step(batch, self.settings), groups_of(batch)
        tokens = {s.key: groups[s.group_id].completions[s.sample_index].token_ids.tolist() for s in plan.sequences}
        prompts = {group.group_id: index for index, group in enumerate(batch.groups)}
        before = {key: self.policy.logprobs(prompts[key[0]], ids).detach() for key, ids in tokens.items()}
        ref = {key: self.reference.logprobs(prompts[key[0]], ids).detach() for key, ids in tokens.items()}
        less_kl = self.advantages(plan, before, ref) if self.objective.rewards_hold_kl else {}
        for number in plan.order:
            part = plan.mini_batches[number]
            if not part:
                continue
            advantages = [torch.tensor(spread(s, less_kl.get(s.key)), dtype=torch.float64) for s in part]
            counts = [s.num_completion_tokens for s in part]
            index_N = torch.tensor([place for place, count in enumerate(counts) for _ in range(count)])
            values = TokenValues(
                policy_N=torch.cat([self.policy.logprobs(prompts[s.group_id], tokens[s.key]) for s in part]),
                sampler_N=torch.cat(
                    [torch.tensor(groups[s.group_id].completions[s.sample_index].logprobs).double() for s in part]
                ),
                before_N=torch.cat([before[s.key] for s in part]),
                ref_N=torch.cat([ref[s.key] for s in part]) if self.objective.needs_reference else None,
                advantages_N=torch.cat(advantages),
                token_weights_N=torch.tensor([s.token_weight for s in part], dtype=torch.float64)[index_N],
                mask_N=torch.ones(len(index_N), dtype=torch.bool),
                entropy_N=torch.zeros(len(index_N), dtype=torch.float64),
                index_N=index_N,
                num_completions=len(part),
            )
            corrected = correct(
                values, anchor_of(values, self.objective), self.objective.corrections, entropy_threshold=None
            )
            loss, _ = self.loss(values, corrected)
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()

    def advantages(
        self, plan: StepPlan, before: dict[tuple[str, int], Tensor], ref: dict[tuple[str, int], Tensor]
    ) -> dict[tuple[str, int], float]:
        """Of rewards less the KL."""
        kl = self.objective.kl
        assert kl.estimator != "exact"
        rewards = []
        for group in plan.rewards:
            keys = [(group.group_id, i) for i in range(G)]
            kls = [float(estimated_kl(before[key], ref[key], kl.estimator).sum()) for key in keys]
            less = [
                None if reward is None else reward - kl.coef * of
                for reward, of in zip(group.rewards_G, kls, strict=True)
            ]
            rewards.append(type(group)(group_id=group.group_id, rewards_G=tuple(less), num_tokens_G=group.num_tokens_G))
        found = estimator_of(self.objective.advantage, {})(rewards)
        return {
            (group.group_id, i): advantage or 0.0
            for group, of in zip(rewards, found, strict=True)
            for i, advantage in enumerate(of)
        }


def spread(sequence: TrainSequence, advantage: float | None) -> list[float]:
    """The advantage of each token."""
    if advantage is not None or not sequence.advantage_spans:
        return [sequence.advantage if advantage is None else advantage] * sequence.num_completion_tokens
    values: list[float] = []
    for span in sequence.advantage_spans:
        values += [span.advantage] * (span.end - len(values))
    return values


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", [path.stem for path in list_objectives()])
def test_a_policy_learns_what_is_right(name: str, seed: int) -> None:
    config = load_config("tiny", [f"objective={name}"])
    policy, rng = TablePolicy(seed), random.Random(seed)
    settings = PlanSettings(learner=config.learner, max_tokens=T, seed=seed, component_weights={"math": 1.0})
    learner = Learner(policy, settings)
    first = policy.accuracy()
    for step in range(STEPS):
        groups = tuple(sampled(policy, step, prompt, rng) for prompt in range(P))
        learner.step(TrainBatch(step=step, policy_version=step, groups=groups))
    assert first < 0.3
    # A question that is answered often is worth nothing to pass@k: every set of k holds a right answer.
    assert policy.accuracy() > (0.6 if name == "pass_at_k" else 0.75)
