"""One rank of the learner.

    RankShare and its groups --collate--> micro-batches --`learner.updates`--> optimizer steps

Every rank receives its own share and calls every method in the same order as the others: training, gathering weights
and saving are collective. A rank that is alone in a call waits until the process group's deadline, then raises.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from learner.algorithm.assignment import assign
from learner.algorithm.batching import MicroBatch, SequenceTokens, collate, tokens_of
from learner.backend.engine import RankPlace, TrainingEngine, join_ranks, leave_ranks
from learner.backend.kernels import fix_threads_and_kernels
from learner.config import LearnerConfig
from learner.model.frozen import FrozenModel
from learner.model.policy import LogprobModel, build_policy
from learner.model.reference import Reference
from learner.model.teacher import AskedTeacher, PolicyTeacher, SeveralTeachers, StartTeacher, Teacher
from learner.optimizer_step import Accumulated
from learner.saving import checkpoint
from learner.step_gate import StepGate
from learner.step_report import computed_tokens, tokens_of_step, update_metrics
from learner.transfer.sender import WeightSender
from learner.types import ComputedTokens, RankShare, StepOutput, TrainingSetup, TrainSequence
from learner.updates import Updates
from rollout.transfer.manifest import WeightChunk, WeightManifest
from rollout.types import Logprobs, RolloutGroup, read_only


@dataclass(slots=True, kw_only=True, eq=False)
class _Streamed:
    """What `accumulate` has done of a step."""

    step: int
    sums: Accumulated
    num_padding: int = 0
    seconds: float = 0.0


class LearnerWorker:
    """Policy, reference and optimizer of one rank. Plain class: `cluster/` runs it as an actor."""

    def __init__(self, config: LearnerConfig, setup: TrainingSetup, place: RankPlace) -> None:
        """Loads the model and joins the other ranks: all must be started, or this raises at the deadline."""
        assert setup.temperature > 0, setup.temperature
        self._config = config
        self._model_dir = setup.model_dir
        self._rank, self._world_size = place.rank, place.world_size
        self._temperature = setup.temperature
        self._total_optimizer_steps = setup.total_steps * config.updates_per_batch * config.mini_batches
        fix_threads_and_kernels(config, world_size=place.world_size, deterministic=setup.deterministic)
        torch.manual_seed(setup.seed)
        join_ranks(place, timeout_s=max(config.start_deadline_s, config.step_deadline_s))
        self._model = build_policy(
            setup.model_dir,
            dtype=config.dtype,
            gradient_checkpointing=config.gradient_checkpointing,
            trust_remote_code=setup.trust_remote_code,
            on_gpu=place.on_gpu,
        )
        # Copied before DeepSpeed takes the policy apart.
        self._gate = StepGate()
        objective = config.objective
        self._reference = Reference(self._model, objective.reference) if objective.needs_reference else None
        self._engine = TrainingEngine(self._model, config, world_size=place.world_size)
        if self._reference is not None:
            self._reference.to(self._engine.device)
        teacher = self._build_teacher(setup, place)
        is_wanted = not place.on_gpu if config.packing is None else config.packing
        self._can_pack = is_wanted and self._model.can_pack and (teacher is None or teacher.can_pack)
        self._sender = WeightSender(
            self._model,
            dtype=setup.weight_dtype,
            chunk_bytes=setup.chunk_mib << 20,
            rank=place.rank,
            keeps=setup.weight_delta,
        )
        if place.world_size == 1 and config.zero_stage < 3:  # its weights would be left filled for the layer
            self._model.at_each_layer(self._gate.within_pass)
        if place.world_size == 1 and self._reference is not None:
            self._reference.model.at_each_layer(self._gate.within_pass)
        self._updates = Updates(
            config, self._engine, self._reference, setup.temperature, teacher=teacher, gate=self._gate
        )
        self._streamed: _Streamed | None = None
        self._bad_steps_in_a_row = 0
        self.policy_version = 0
        """Training steps that changed the weights."""

    def _build_teacher(self, setup: TrainingSetup, place: RankPlace) -> Teacher | None:
        config = self._config.teacher
        if config is None:
            return None
        if config.is_policy:
            return PolicyTeacher(self._engine, self._model)
        if config.base_url is not None:
            return AskedTeacher()

        def frozen(folder: str) -> LogprobModel:
            model = build_policy(
                folder,
                dtype=self._config.dtype,
                gradient_checkpointing=False,
                trust_remote_code=setup.trust_remote_code,
                on_gpu=place.on_gpu,
            )
            if place.world_size == 1:
                model.at_each_layer(self._gate.within_pass)
            return model

        if config.is_start:
            teacher = StartTeacher(frozen(setup.model_dir))
            teacher.to(self._engine.device)
            return teacher
        teachers = {name: FrozenModel(frozen(folder)) for name, folder in setup.teacher_dirs.items()}
        for one in teachers.values():
            one.to(self._engine.device)
        return SeveralTeachers(teachers)

    def can_pack(self) -> bool:
        """Whether sequences are to share rows: the configuration wants it, and policy and teacher compute them."""
        return self._can_pack

    def accumulate(self, share: RankShare, *groups: RolloutGroup) -> ComputedTokens:
        """Adds the gradient of some groups of a step, while others are sampled: `share` is of these alone. `train_step`
        with the rest takes the optimizer step (`LearnerConfig.streaming`). Collective, and nothing may move the weights
        between the two; they may be sent and scored.

        Errors: `StepGivenUpError`; see `train_step`.
        """
        assert share.policy_version == self.policy_version, (share.policy_version, self.policy_version)
        started_s = time.monotonic()
        if self._streamed is None:
            self._streamed = _Streamed(step=share.step, sums=self._updates.begin())
        streamed = self._streamed
        assert streamed.step == share.step, (streamed.step, share.step)
        self._gate.begin(share.step)
        try:
            collated = self._collated(share, share.mini_batches, groups)
            without = self._collated(share, share.without_gradient, groups)
            computed = self._updates.accumulate(share, collated, without, streamed.sums)
        finally:
            self._gate.pause()
        streamed.num_padding += share.num_padding
        streamed.seconds += time.monotonic() - started_s
        return tokens_of_step(computed)

    def train_step(self, share: RankShare, *groups: RolloutGroup) -> tuple[StepOutput, ComputedTokens]:
        """One training step: the optimizer steps on the batch of which this is a share, or what `accumulate` has left
        of it. `groups` are those of `share.group_ids`, in any order. The values of tokens are apart, so that they can
        stay where they are.

        An update whose loss or gradient is not finite is not applied, on any rank, and ends the step.

        Errors: `StepGivenUpError`, before any update. The worker can be saved then, and trains no more: gradients of
        the step are left in it.
        """
        assert share.policy_version == self.policy_version, (share.policy_version, self.policy_version)
        started_s = time.monotonic()
        streamed, self._streamed = self._streamed, None
        assert streamed is None or streamed.step == share.step, (streamed, share.step)
        if share.num_completions == 0:
            return self._nothing_to_train_on(share), computed_tokens((), (), (), ())
        self._gate.begin(share.step)
        try:
            updates, computed = self._updates.run(
                share,
                self._collated(share, share.mini_batches, groups),
                self._collated(share, share.without_gradient, groups),
                total_optimizer_steps=self._total_optimizer_steps,
                accumulated=streamed.sums if streamed is not None else None,
            )
        finally:
            self._gate.end()
        bad = not updates[-1].applied
        self._bad_steps_in_a_row = self._bad_steps_in_a_row + 1 if bad else 0
        skipped = not updates[0].applied
        if not skipped:
            self.policy_version += 1
            if self._reference is not None:
                self._reference.follow(self._model, self.policy_version)
        num_padding = share.num_padding + (streamed.num_padding if streamed is not None else 0)
        seconds = time.monotonic() - started_s
        output = StepOutput(
            step=share.step,
            policy_version=self.policy_version,
            skipped=skipped,
            bad_steps_in_a_row=self._bad_steps_in_a_row,
            metrics={
                **update_metrics(updates, share.order, self._config),
                "train/tokens": float(share.num_trained_tokens),
                "train/num_sequences": float(share.num_sequences),
                "train/sequence_tokens": float(share.num_sequence_tokens),
                "train/padding_fraction": num_padding / max(1, num_padding + share.num_sequence_tokens),
                "train/seconds": seconds + (streamed.seconds if streamed is not None else 0.0),
            },
            reason=updates[-1].why_not_applied(len(updates), len(share.order)) if bad else "",
        )
        return output, tokens_of_step(computed)

    def _collated(
        self, share: RankShare, parts: Sequence[Sequence[Sequence[TrainSequence]]], groups: Sequence[RolloutGroup]
    ) -> list[list[MicroBatch]]:
        by_id = {group.group_id: group for group in groups}
        version, device = share.policy_version, self._engine.device
        return [
            [collate(of, tokens_of(of, by_id), policy_version=version, packed=share.packed).to(device) for of in part]
            for part in parts
        ]

    def hold_step(self, step: int) -> int | None:
        """`StepGate.hold`, from a thread beside that of the other calls."""
        return self._gate.hold(step)

    def decide_step(self, step: int, at: int | None) -> None:
        """`StepGate.decide`, likewise."""
        self._gate.decide(step, at)

    def weight_manifest(self) -> WeightManifest:
        """Begins a transfer of the current weights. All ranks call this, every `weight_chunk` and `weights_digest`."""
        return self._sender.manifest(self.policy_version)

    def weight_chunk(self, index: int, *, as_delta: bool = False) -> WeightChunk | None:
        """Chunk `index` of the manifest on rank 0, None on other ranks; `as_delta` where all have its `base`."""
        return self._sender.chunk(index, as_delta=as_delta)

    def weight_bytes_sent(self) -> int:
        """Of the last transfer, by this rank."""
        return self._sender.num_bytes_sent

    def weights_digest(self) -> str:
        """Digest of the transfer after its last chunk; empty on ranks other than 0."""
        return self._sender.digest()

    def score_tokens(self, sequences: Sequence[Sequence[int]]) -> list[Logprobs]:
        """[n - 1] log-probabilities (nats, temperature 1) of tokens 1 to n - 1 of each sequence, under the current
        weights.

        The same forward pass as in training. All ranks call it with the same sequences and have the same result.
        """
        wanted = [_whole_sequence(i, token_ids) for i, token_ids in enumerate(sequences)]
        # In the layout of training: what a canary compares is what is trained.
        packed = self.can_pack()
        (parts,) = assign(wanted, num_ranks=1, micro_batch_tokens=self._config.micro_batch_tokens, packed=packed)
        scores: dict[int, Logprobs] = {}
        for part in parts:
            tokens = [_whole_tokens(sequences[sequence.sample_index]) for sequence in part]
            micro_batch = collate(part, tokens, packed=packed).to(self._engine.device)
            with torch.no_grad():
                logprobs_N, _ = self._engine(micro_batch.inputs, micro_batch.targets_N, 1.0)
            by_completion = computed_tokens([micro_batch], [logprobs_N], [None], [logprobs_N]).by_completion()
            scores |= {key[1]: values.policy_logprobs for key, values in by_completion.items()}
        return [scores[i] for i in range(len(sequences))]

    def rounding_errors(self, sequences: Sequence[Sequence[int]]) -> list[Logprobs]:
        """[n - 1] what rounding alone makes of the same (nats): as an engine computes it in bf16, minus in fp32. A
        measure for how far apart two that compute the same function in bf16 may be. Collective, as `score_tokens`."""
        with self._model.computing_in(torch.float32):
            exact = self.score_tokens(sequences)
        with self._model.computing_in(torch.bfloat16):
            rounded = self.score_tokens(sequences)
        return [theirs - ours for theirs, ours in zip(rounded, exact, strict=True)]

    def save(self, directory: str) -> None:
        """Writes everything the learner needs to go on into a directory that is not yet published. Collective."""
        state = checkpoint.LearnerState(
            policy_version=self.policy_version,
            optimizer_steps=self._updates.optimizer_steps,
            bad_steps_in_a_row=self._bad_steps_in_a_row,
            world_size=self._world_size,
            zero_stage=self._config.zero_stage,
            **self._updates.entropy.state(),
        )
        moved = self._reference is not None and self._reference.is_updated and self._rank == 0
        reference = self._reference.weights() if moved and self._reference is not None else None
        checkpoint.save(self._engine, self._model, state, Path(directory), rank=self._rank, reference=reference)

    def load(self, directory: str, *, is_hashed: bool = False) -> None:
        """Goes on from a published checkpoint; `is_hashed` as in `checkpoint.load`. Collective. Errors:
        `CheckpointError`."""
        state = checkpoint.load(
            self._engine, Path(directory), rank=self._rank, world_size=self._world_size, is_hashed=is_hashed
        )
        self.policy_version = state.policy_version
        self._updates.optimizer_steps = state.optimizer_steps
        self._bad_steps_in_a_row = state.bad_steps_in_a_row
        self._updates.entropy = self._updates.entropy.restored(state.entropy_coef, state.last_entropy)
        if self._reference is not None and self._reference.is_updated:
            reference = checkpoint.load_reference(Path(directory))
            if reference is not None:
                self._reference.load(reference)

    def export(self, directory: str) -> None:
        """Writes the current weights as a Hugging Face directory. Collective; rank 0 writes. Errors: `ModelError`."""
        weights = checkpoint.full_weights(self._model, rank=self._rank)
        if self._rank == 0:
            checkpoint.export_hf(weights, Path(self._model_dir), Path(directory))

    def close(self) -> None:
        """Leaves the other ranks. The worker cannot be used afterwards."""
        leave_ranks()

    def _nothing_to_train_on(self, share: RankShare) -> StepOutput:
        """Not a bad step: nothing was wrong with the numbers, there were none."""
        return StepOutput(
            step=share.step,
            policy_version=self.policy_version,
            skipped=True,
            bad_steps_in_a_row=self._bad_steps_in_a_row,
            metrics={"train/num_sequences": 0.0, "train/tokens": 0.0, "train/computed_tokens": 0.0},
            reason="no completion of the batch has a token to train on",
        )


def _whole_sequence(index: int, token_ids: Sequence[int]) -> TrainSequence:
    """All tokens but the first as if sampled; never trained on."""
    num_scored = len(token_ids) - 1
    assert num_scored >= 1, f"sequence {index} has {len(token_ids)} tokens; the first of two is scored at the earliest"
    return TrainSequence(
        group_id="",
        sample_index=index,
        num_prompt_tokens=1,
        num_completion_tokens=num_scored,
        advantage=0.0,
        token_weight=0.0,
    )


def _whole_tokens(token_ids: Sequence[int]) -> SequenceTokens:
    return SequenceTokens(
        prompt_ids=token_ids[:1],
        completion_ids=read_only(token_ids[1:], np.int32),
        rollout_logprobs=np.zeros(len(token_ids) - 1, np.float32),
        loss_mask=np.ones(len(token_ids) - 1, np.bool_),
    )
