"""The optimizer steps of one training step, on one rank.

    micro-batches --what is known before (reference, policy, advantages, masks)--> for each mini-batch in order:
                                                       forward, loss, backward of each micro-batch -> optimizer step

Dimensions: N tokens of a micro-batch, S sequences of the training step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from learner.algorithm.advantages import estimator_of
from learner.algorithm.aggregation import token_weights
from learner.algorithm.batching import MicroBatch
from learner.algorithm.corrections import (
    NOT_CORRECTED,
    Corrected,
    correct,
    entropy_threshold,
    fixed_corrections,
    moving_corrections,
)
from learner.algorithm.distillation import sampled_kl, taught_advantages
from learner.algorithm.entropy import EntropyControl
from learner.algorithm.kl import estimated_kl
from learner.algorithm.loss import SUM_NAMES, Loss, anchor_of
from learner.algorithm.schedule import lr_at
from learner.algorithm.tokens import TokenValues
from learner.backend.engine import TrainingEngine
from learner.config import LearnerConfig
from learner.model.divergences import Comparison
from learner.model.reference import Reference
from learner.model.teacher import Teacher
from learner.types import RankShare, WholeStep


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Update:
    """One optimizer step, applied or not. Numbers are those of the whole mini-batch."""

    applied: bool
    grad_norm: float
    lr: float
    loss: float
    sums: Tensor
    """`LossSums.vector` over all ranks."""
    max_abs_log_ratio: float
    entropy_coef: float

    def why_not_applied(self, number: int, num_updates: int) -> str:
        """A sentence on update `number`, counted from 1."""
        return (
            f"update {number} of {num_updates} was not applied: loss {self.loss}, norm of the gradient "
            f"{self.grad_norm}; both must be finite"
        )


@dataclass(slots=True, kw_only=True, eq=False)
class Prepared:
    """A micro-batch with what is known before the first update, and what the first pass over it computed."""

    tokens: MicroBatch
    ref_N: Tensor | None = None
    before_N: Tensor | None = None
    """Log-probabilities of the policy before the step's first update."""
    entropy_N: Tensor | None = None
    """Its entropies."""
    teacher_N: Tensor | None = None
    """Log-probabilities of the teacher, where its advantages are of the sampled tokens."""
    teacher_coef: float = 0.0
    """What those advantages are multiplied by."""
    corrected: Corrected | None = None
    """What is fixed before the first update; None: all of it is made in each pass, from its own values."""

    def values(
        self,
        policy_N: Tensor,
        entropy_N: Tensor,
        *,
        divergence_N: Tensor | None = None,
        teacher_kl_N: Tensor | None = None,
    ) -> TokenValues:
        """What the loss sees of one pass; the exact divergences of that pass from reference and teacher."""
        tokens, advantages_N = self.tokens, self.tokens.advantages_N
        if self.teacher_N is not None:
            teacher_kl_N = sampled_kl(policy_N if self.before_N is None else self.before_N, self.teacher_N)
            advantages_N = taught_advantages(advantages_N, teacher_kl_N, self.teacher_coef)
        return TokenValues(
            policy_N=policy_N,
            sampler_N=tokens.rollout_logprobs_N,
            before_N=self.before_N,
            ref_N=self.ref_N,
            advantages_N=advantages_N,
            token_weights_N=tokens.token_weights_N,
            mask_N=tokens.mask_N,
            entropy_N=entropy_N,
            index_N=tokens.index_N,
            num_completions=max(1, len(tokens.sequences)),
            lag_N=tokens.lag_N,
            divergence_N=divergence_N,
            teacher_kl_N=teacher_kl_N,
        )


class Updates:
    """Takes the optimizer steps of training steps, one training step after the other."""

    def __init__(
        self,
        config: LearnerConfig,
        engine: TrainingEngine,
        reference: Reference | None,
        temperature: float,
        *,
        teacher: Teacher | None = None,
    ) -> None:
        self._config = config
        self._objective = config.objective
        self._engine = engine
        self._reference = reference
        self._teacher = teacher
        self._temperature = temperature
        self._loss = Loss(config.objective, config.teacher)
        self.entropy = EntropyControl.of(config.objective.entropy)
        self.optimizer_steps = 0

    def run(
        self, share: RankShare, mini_batches: Sequence[Sequence[MicroBatch]], *, total_optimizer_steps: int
    ) -> tuple[list[Update], list[Prepared]]:
        """All optimizer steps on the batch of which this is a share, until one cannot be applied; and what was computed
        for the micro-batches, in their order."""
        prepared = [[Prepared(tokens=micro_batch) for micro_batch in part] for part in mini_batches]
        whole = [one for part in prepared for one in part]
        self._prepare(share, prepared)
        updates: list[Update] = []
        for number in share.order:
            updates.append(self._update(prepared[number], total_optimizer_steps))
            if not updates[-1].applied:
                break
        return updates, whole

    def _prepare(self, share: RankShare, prepared: Sequence[Sequence[Prepared]]) -> None:
        """What must be known before the first update. Collective where it depends on the whole batch."""
        whole = [one for part in prepared for one in part]
        for one in whole:
            if self._reference is not None:
                one.ref_N = self._reference.logprobs(one.tokens, self._temperature)
            if self._teacher is not None and self._config.teacher is not None and not self._config.teacher.is_exact:
                one.teacher_N = self._teacher.logprobs(one.tokens, self._temperature)
                one.teacher_coef = self._config.teacher.coef
        if not self._config.needs_values_before:
            return
        for one in whole:
            with torch.no_grad():
                one.before_N, one.entropy_N = self._forward(one.tokens)
        if self._objective.rewards_hold_kl:
            assert share.whole is not None
            self._advantages_with_kl(share.whole, whole)
        if self._objective.corrections:
            self._correct(share, prepared)

    def _advantages_with_kl(self, of_step: WholeStep, whole: Sequence[Prepared]) -> None:
        """Advantages of rewards less the KL of their completions, which any rank may have computed."""
        kl = self._objective.kl
        kl_S = torch.zeros(len(of_step.num_trained_S), dtype=torch.float64, device=self._engine.device)
        for one in whole:
            assert one.before_N is not None
            assert one.ref_N is not None
            if one.tokens.sequences:
                values = one.values(one.before_N, one.before_N)
                assert kl.estimator != "exact"
                kl_N = estimated_kl(values.known(one.before_N), values.known(one.ref_N), kl.estimator)
                kl_S[_indices(one.tokens)] = values.completions.sums(kl_N.double())
        torch.distributed.all_reduce(kl_S)
        places = {s.key: s.index for part in of_step.mini_batches for s in part}
        rewards = [
            replace(
                group,
                rewards_G=tuple(
                    reward
                    if reward is None or (group.group_id, i) not in places
                    else reward - kl.coef * float(kl_S[places[group.group_id, i]])
                    for i, reward in enumerate(group.rewards_G)
                ),
            )
            for group in of_step.rewards
        ]
        found = {
            (group.group_id, i): advantage
            for group, of in zip(rewards, estimator_of(self._objective.advantage, {})(rewards), strict=True)
            for i, advantage in enumerate(of)
        }
        for one in whole:
            if one.tokens.sequences:
                advantages = [found[sequence.key] or 0.0 for sequence in one.tokens.sequences]
                of_sequence = torch.tensor(advantages, dtype=torch.float32, device=self._engine.device)
                one.tokens = replace(one.tokens, advantages_N=of_sequence.index_select(0, one.tokens.index_N))

    def _correct(self, share: RankShare, prepared: Sequence[Sequence[Prepared]]) -> None:
        """Weights and masks of the policy before the step, and with `count: kept` what follows from the masks."""
        objective = self._objective
        whole = [one for part in prepared for one in part]
        threshold = self._entropy_threshold(whole)
        for one in whole:
            assert one.before_N is not None
            assert one.entropy_N is not None
            values = one.values(one.before_N, one.entropy_N)
            anchor_N = one.before_N if objective.proximal == "sampler" else anchor_of(values, objective)
            one.corrected = correct(values, anchor_N, fixed_corrections(objective), entropy_threshold=threshold)
        if objective.aggregation.count == "kept" and objective.has_masks:
            assert share.whole is not None
            self._count_kept(share.whole, prepared, max_tokens=share.max_tokens)

    def _entropy_threshold(self, whole: Sequence[Prepared]) -> float | None:
        """Over the trained tokens of all ranks."""
        share = self._objective.top_entropy_share
        if share is None:
            return None
        entropies = [one.entropy_N[one.tokens.mask_N].cpu() for one in whole if one.entropy_N is not None]
        gathered: list[Tensor] = [torch.empty(0)] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(gathered, torch.cat(entropies))
        return entropy_threshold(torch.cat(gathered), share)

    def _count_kept(self, of_step: WholeStep, prepared: Sequence[Sequence[Prepared]], *, max_tokens: int) -> None:
        """Tokens that a mask leaves out are no tokens: mask and denominators are made anew."""
        kept_S = torch.zeros(len(of_step.num_trained_S), dtype=torch.int64, device=self._engine.device)
        for part in prepared:
            for one in part:
                assert one.corrected is not None
                keep_N = one.corrected.keep_N
                if one.tokens.sequences and keep_N is not None:
                    one.tokens = replace(one.tokens, mask_N=one.tokens.mask_N & keep_N)
                    counts = torch.bincount(one.tokens.index_N[one.tokens.mask_N], minlength=len(one.tokens.sequences))
                    kept_S[_indices(one.tokens)] = counts
        torch.distributed.all_reduce(kept_S)
        kept = kept_S.tolist()
        weights: dict[int, float] = {}
        for sequences in of_step.mini_batches:
            found = token_weights(
                [kept[sequence.index] for sequence in sequences],
                [sequence.group_id for sequence in sequences],
                self._objective.aggregation,
                max_tokens=max_tokens,
            )
            weights |= {sequence.index: weight for sequence, weight in zip(sequences, found, strict=True)}
        for part in prepared:
            for one in part:
                if one.tokens.sequences:
                    of_sequence = [weights[sequence.index] for sequence in one.tokens.sequences]
                    weight_S = torch.tensor(of_sequence, dtype=torch.float32, device=self._engine.device)
                    one.tokens = replace(one.tokens, token_weights_N=weight_S.index_select(0, one.tokens.index_N))

    def _update(self, part: Sequence[Prepared], total_optimizer_steps: int) -> Update:
        """One optimizer step over the micro-batches of a mini-batch."""
        totals = torch.zeros(1 + len(SUM_NAMES), dtype=torch.float64, device=self._engine.device)
        largest = torch.zeros((), dtype=torch.float64, device=self._engine.device)
        entropy_coef = self.entropy.coef_now
        for one in part:
            compared = self._comparisons(one.tokens)
            policy_N, entropy_N, *found = self._forward(one.tokens, tuple(compared.values()))
            values = one.values(policy_N, entropy_N, **dict(zip(compared, found, strict=True)))
            corrected = self._corrected_now(values, one.corrected)
            loss, sums = self._loss(values, corrected, entropy_coef=entropy_coef)
            self._engine.backward(loss)
            totals += torch.cat([loss.detach().double()[None], sums.vector])
            largest = torch.maximum(largest, sums.max_abs_log_ratio)
            if one.before_N is None:
                one.before_N, one.entropy_N = policy_N.detach(), entropy_N.detach()
        torch.distributed.all_reduce(totals)
        torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
        lr = lr_at(
            self.optimizer_steps,
            peak_lr=self._config.lr,
            schedule=self._config.schedule,
            total_steps=total_optimizer_steps,
        )
        result = self._engine.step(lr)
        self.optimizer_steps += result.applied
        totals = totals.cpu()
        if result.applied:
            self.entropy = self.entropy.after(totals[1:])
        return Update(
            applied=result.applied,
            grad_norm=result.grad_norm,
            lr=lr,
            loss=float(totals[0]),
            sums=totals[1:],
            max_abs_log_ratio=float(largest),
            entropy_coef=entropy_coef,
        )

    def _comparisons(self, tokens: MicroBatch) -> dict[str, Comparison]:
        """What the policy is compared with over the whole vocabulary, by the argument of `Prepared.values` that takes
        the divergence. Computed in the pass that uses it: hidden states of a whole batch are not kept."""
        found: dict[str, Comparison] = {}
        if self._reference is not None and self._objective.kl.estimator == "exact":
            other = self._reference.predictions(tokens, self._temperature)
            found["divergence_N"] = Comparison(kind="reverse", other=other)
        teacher = self._config.teacher
        if self._teacher is not None and teacher is not None and teacher.kind != "sampled":
            other = self._teacher.predictions(tokens, self._temperature)
            found["teacher_kl_N"] = Comparison(kind=teacher.kind, beta=teacher.beta, other=other)
        return found

    def _forward(self, tokens: MicroBatch, against: tuple[Comparison, ...] = ()) -> tuple[Tensor, ...]:
        """([N], [N], [N] of each comparison): log-probabilities of the completion tokens, entropies, divergences, by
        the current weights."""
        found: tuple[Tensor, ...] = self._engine(
            tokens.input_ids_BT,
            tokens.positions_N,
            tokens.targets_N,
            self._temperature,
            self._objective.entropy.is_on,
            against,
        )
        return found

    def _corrected_now(self, values: TokenValues, fixed: Corrected | None) -> Corrected:
        """With what was fixed before the step, or all by the policy of this pass, which then is that before the step.
        A mask that follows the policy is of this pass in either case."""
        objective = self._objective
        if not objective.corrections:
            return NOT_CORRECTED
        is_sampler = objective.proximal == "sampler"
        anchor_N = values.policy_N.detach() if is_sampler else anchor_of(values, objective)
        if fixed is None:
            return correct(values, anchor_N, objective.corrections, entropy_threshold=None)
        return fixed.also(correct(values, anchor_N, moving_corrections(objective), entropy_threshold=None))


def _indices(tokens: MicroBatch) -> list[int]:
    """Places of its sequences in the training step."""
    return [sequence.index for sequence in tokens.sequences]
