"""The optimizer steps of one training step, on one rank.

    micro-batches --what is known before (reference, policy, advantages, masks)--> for each mini-batch in order:
                                                       forward, loss, backward of each micro-batch -> optimizer step

Dimensions: N tokens of a micro-batch, S sequences of the training step.
"""

from collections.abc import Sequence
from dataclasses import replace

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
from learner.algorithm.entropy import EntropyControl
from learner.algorithm.kl import estimated_kl
from learner.algorithm.kl_rewards import rewards_less_kl, rewards_to_go
from learner.algorithm.loss import SUM_NAMES, Loss, anchor_of
from learner.algorithm.schedule import lr_at
from learner.algorithm.tokens import Completions, TokenValues
from learner.backend.engine import TrainingEngine
from learner.config import LearnerConfig
from learner.model.divergences import Comparison
from learner.model.reference import Reference
from learner.model.teacher import Teacher
from learner.objective import ReinforcePlusPlusAdvantage
from learner.optimizer_step import Accumulated, Update
from learner.prepared import Prepared
from learner.step_gate import StepGate
from learner.types import RankShare, WholeStep
from reward.types import all_rewards_equal


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
        gate: StepGate | None = None,
    ) -> None:
        self._gate = gate or StepGate()
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
        self,
        share: RankShare,
        mini_batches: Sequence[Sequence[MicroBatch]],
        without_gradient: Sequence[Sequence[MicroBatch]] = (),
        *,
        total_optimizer_steps: int,
        accumulated: Accumulated | None = None,
    ) -> tuple[list[Update], list[Prepared]]:
        """All optimizer steps on the batch of which this is a share, until one cannot be applied; and what was computed
        for the micro-batches. `without_gradient` [mini-batch][micro-batch]: computed for the figures alone.
        `accumulated`: of the groups of the step that `accumulate` was called with."""
        prepared = _prepared(mini_batches, without_gradient)
        whole = [one for part in prepared for one in part]
        self._prepare(share, prepared)
        updates: list[Update] = []
        for number in share.order:
            sums = accumulated or self.begin()
            for one in prepared[number]:
                self._add(one, sums)
            updates.append(self._apply(sums, total_optimizer_steps, share.denominator))
            if not updates[-1].applied:
                break
        return updates, whole

    def begin(self) -> Accumulated:
        """Of an optimizer step of which nothing is computed yet."""
        totals = torch.zeros(2 + len(SUM_NAMES), dtype=torch.float64, device=self._engine.device)
        return Accumulated(totals=totals, largest=totals.new_zeros(()), entropy_coef=self.entropy.coef_now)

    def accumulate(
        self,
        share: RankShare,
        mini_batches: Sequence[Sequence[MicroBatch]],
        without_gradient: Sequence[Sequence[MicroBatch]],
        accumulated: Accumulated,
    ) -> list[Prepared]:
        """Adds the gradient of some groups of an optimizer step, and what was computed for it. For objectives of which
        nothing depends on the whole step (`LearnerConfig.streaming`)."""
        assert len(mini_batches) == 1, "a step that is streamed has one optimizer step"
        assert not self._config.needs_values_before, "a step that is streamed has one pass"
        (prepared,) = _prepared(mini_batches, without_gradient)
        self._prepare(share, [prepared])
        for one in prepared:
            self._add(one, accumulated)
        return prepared

    def _prepare(self, share: RankShare, prepared: Sequence[Sequence[Prepared]]) -> None:
        """What must be known before the first update. Collective where it depends on the whole batch."""
        whole = [one for part in prepared for one in part]
        for one in whole:
            self._gate.enter_pass()
            if self._reference is not None:
                one.ref_N = self._reference.logprobs(one.tokens, self._temperature)
            if self._teacher is not None and self._config.teacher is not None and not self._config.teacher.is_exact:
                one.teacher_N = self._teacher.logprobs(one.tokens, self._temperature)
                one.teacher_coef = self._config.teacher.coef
        if not self._config.needs_values_before:
            return
        for one in whole:
            self._gate.enter_pass()
            with torch.no_grad():
                one.before_N, one.entropy_N = self._forward(one.tokens)
        if self._objective.rewards_hold_kl:
            assert share.whole is not None
            self._advantages_with_kl(share.whole, whole)
        if self._objective.corrections:
            self._correct(share, prepared)

    def _advantages_with_kl(self, of_step: WholeStep, whole: Sequence[Prepared]) -> None:
        """Advantages of rewards less the KL. Completions of a group, and tokens of the batch, may be on any rank."""
        is_of_tokens = isinstance(self._objective.advantage, ReinforcePlusPlusAdvantage)
        computed = [one for one in whole if one.tokens.sequences]
        found = (self._token_advantages if is_of_tokens else self._completion_advantages)(of_step, computed)
        for one, advantages_N in zip(computed, found, strict=True):
            one.tokens = replace(one.tokens, advantages_N=advantages_N.float())

    def _completion_advantages(self, of_step: WholeStep, computed: Sequence[Prepared]) -> list[Tensor]:
        """[micro-batch][N] by the estimator of the configuration, from what each completion has in all."""
        kl_S = torch.zeros(len(of_step.num_trained_S), dtype=torch.float64, device=self._engine.device)
        for one in computed:
            kl_N, completions = self._kl_of_rewards(one)
            kl_S[_indices(one.tokens)] = completions.sums(kl_N)
        torch.distributed.all_reduce(kl_S)
        kl = {s.key: float(kl_S[s.index]) for part in of_step.mini_batches for s in part}
        rewards = rewards_less_kl(of_step.rewards, kl, self._objective.kl.coef)
        estimated = estimator_of(self._objective.advantage, {})(rewards)
        found = {
            (group.group_id, i): advantage
            for group, of in zip(rewards, estimated, strict=True)
            for i, advantage in enumerate(of)
        }
        return [
            _per_sequence([found[sequence.key] or 0.0 for sequence in one.tokens.sequences], one.tokens)
            for one in computed
        ]

    def _token_advantages(self, of_step: WholeStep, computed: Sequence[Prepared]) -> list[Tensor]:
        """[micro-batch][N] of each token from what follows it, normalised over the trained tokens of all ranks."""
        config = self._objective.advantage
        assert isinstance(config, ReinforcePlusPlusAdvantage)
        rewards = {(group.group_id, i): reward for group in of_step.rewards for i, reward in enumerate(group.rewards_G)}
        to_go: list[Tensor] = []
        for one in computed:
            kl_N, completions = self._kl_of_rewards(one)
            rewards_S = kl_N.new_tensor([rewards[sequence.key] or 0.0 for sequence in one.tokens.sequences])
            to_go.append(rewards_to_go(rewards_S, kl_N, completions, self._objective.kl.coef))
        trained = [values_N[one.tokens.mask_N] for one, values_N in zip(computed, to_go, strict=True)]
        mean, divisor = self._moments(torch.cat([self._nothing(), *trained]))
        if divisor is None:
            return [torch.zeros_like(values_N) for values_N in to_go]
        return [(values_N - mean) / (divisor + config.eps) for values_N in to_go]

    def _moments(self, values: Tensor) -> tuple[float, float | None]:
        """Mean and population deviation of float64 values of all ranks; None for one where they are all equal."""
        total = torch.stack([values.new_tensor(float(len(values))), values.sum()])
        torch.distributed.all_reduce(total)
        infinite = values.new_tensor([torch.inf])
        bounds = torch.stack([torch.cat([infinite, values]).min(), torch.cat([infinite, -values]).min()])
        torch.distributed.all_reduce(bounds, op=torch.distributed.ReduceOp.MIN)
        number, mean = float(total[0]), float(total[1] / total[0])
        squares = (values - mean).square().sum()
        torch.distributed.all_reduce(squares)
        is_equal = all_rewards_equal([float(bounds[0]), -float(bounds[1])])
        return mean, None if is_equal else (float(squares) / number) ** 0.5

    def _kl_of_rewards(self, one: Prepared) -> tuple[Tensor, Completions]:
        """[N] float64, by the policy before the step."""
        assert one.before_N is not None
        assert one.ref_N is not None
        estimator = self._objective.kl.estimator
        assert estimator != "exact"
        values = one.values(one.before_N, one.before_N)
        return estimated_kl(values.known(one.before_N), values.known(one.ref_N), estimator).double(), values.completions

    def _nothing(self) -> Tensor:
        return torch.zeros(0, dtype=torch.float64, device=self._engine.device)

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
                    one.num_left_out = int((one.tokens.mask_N & ~keep_N).sum())
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
                    one.tokens = replace(one.tokens, token_weights_N=_per_sequence(of_sequence, one.tokens).float())

    def _add(self, one: Prepared, accumulated: Accumulated) -> None:
        """The passes over one micro-batch."""
        self._gate.enter_pass()
        with torch.set_grad_enabled(one.has_gradient):
            compared = self._comparisons(one.tokens)
            policy_N, entropy_N, *found = self._forward(one.tokens, tuple(compared.values()))
            values = one.values(policy_N, entropy_N, **dict(zip(compared, found, strict=True)))
            corrected = self._corrected_now(values, one.corrected)
            loss, sums = self._loss(values, corrected, entropy_coef=accumulated.entropy_coef)
        if one.has_gradient:
            self._engine.backward(loss)
        accumulated.add(loss, one.num_left_out, sums)
        if one.before_N is None:
            one.before_N, one.entropy_N = policy_N.detach(), entropy_N.detach()

    def _apply(self, accumulated: Accumulated, total_optimizer_steps: int, denominator: int) -> Update:
        """The optimizer step with the gradient that was added up, over `denominator`."""
        self._gate.commit()
        totals, largest = accumulated.totals, accumulated.largest
        torch.distributed.all_reduce(totals)
        torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
        lr = lr_at(
            self.optimizer_steps,
            peak_lr=self._config.lr,
            schedule=self._config.schedule,
            total_steps=total_optimizer_steps,
        )
        result = self._engine.step(lr, denominator=denominator)
        self.optimizer_steps += result.applied
        totals = totals.cpu()
        if result.applied:
            self.entropy = self.entropy.after(totals[2:])
        return Update(
            applied=result.applied,
            grad_norm=result.grad_norm,
            lr=lr,
            loss=float(totals[0]) / denominator,
            num_left_out=round(float(totals[1])),
            sums=totals[2:],
            max_abs_log_ratio=float(largest),
            entropy_coef=accumulated.entropy_coef,
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
            tokens.inputs,
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


def _prepared(
    mini_batches: Sequence[Sequence[MicroBatch]], without_gradient: Sequence[Sequence[MicroBatch]]
) -> list[list[Prepared]]:
    """[mini-batch][micro-batch], those without a gradient last."""
    prepared = [[Prepared(tokens=micro_batch) for micro_batch in part] for part in mini_batches]
    for part, others in zip(prepared, without_gradient, strict=False):  # there may be none of any mini-batch
        part.extend(Prepared(tokens=micro_batch, has_gradient=False) for micro_batch in others)
    return prepared


def _indices(tokens: MicroBatch) -> list[int]:
    """Places of its sequences in the training step."""
    return [sequence.index for sequence in tokens.sequences]


def _per_sequence(values: Sequence[float], tokens: MicroBatch) -> Tensor:
    """[N] float64, the value of its sequence at each token."""
    values_S = torch.tensor(values, dtype=torch.float64, device=tokens.index_N.device)
    return values_S.index_select(0, tokens.index_N)
