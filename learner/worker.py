"""One rank of the learner.

    TrainBatch --plan, assign--> this rank's micro-batches --forward, loss, backward--> one optimizer step
                                                                          (again, `updates_per_batch` times)

Every rank receives the whole batch and calls every method in the same order as the others: training, gathering weights
and saving are collective. A rank that is alone in a call waits until the process group's deadline, then raises.
"""

import ctypes
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from learner.algorithm.batching import MicroBatch, StepPlan, TrainSequence, assign, collate, plan_step
from learner.algorithm.loss import SUM_NAMES, grpo_loss, means
from learner.algorithm.schedule import lr_at
from learner.backend.engine import RankPlace, RendezvousAddress, TrainingEngine, join_ranks, leave_ranks
from learner.config import LearnerConfig
from learner.model.policy import build_policy, freeze_copy
from learner.saving import checkpoint
from learner.transfer.sender import WeightSender
from learner.types import SequenceOutput, StepOutput, TrainBatch
from rollout.transfer.manifest import WeightChunk, WeightManifest

# Numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Update:
    """One optimizer step, applied or not. Numbers are those of the whole batch."""

    applied: bool
    grad_norm: float
    lr: float
    loss: float
    sums: Tensor
    """[6] `LossSums.as_vector` over all ranks."""
    max_abs_log_ratio: float
    policy_logprobs: tuple[Tensor, ...]
    """Of this rank's micro-batches, under the weights before the update."""
    entropies: tuple[Tensor, ...]
    """As `policy_logprobs`."""

    def why_not_applied(self, number: int, num_updates: int) -> str:
        return (
            f"update {number} of {num_updates} was not applied: loss {self.loss}, norm of the gradient "
            f"{self.grad_norm}; both must be finite"
        )


class LearnerWorker:
    """Policy, reference and optimizer of one rank. Plain class: `cluster/` runs it as an actor."""

    def __init__(
        self,
        config: LearnerConfig,
        *,
        model_dir: str,
        rank: int,
        world_size: int,
        rendezvous: RendezvousAddress,
        seed: int,
        temperature: float,
        total_steps: int,
        weight_dtype: str,
        chunk_mib: int,
        deterministic: bool,
        local_rank: int = 0,
        trust_remote_code: bool = False,
    ) -> None:
        """Loads the model and joins the other ranks: all must be started, or this raises at the deadline.

        `temperature` is that of sampling, `total_steps` the training steps of the run (for the learning rate),
        `weight_dtype` the precision of the engines, `chunk_mib` the size of a chunk of weights.
        """
        assert temperature > 0, temperature
        self._config = config
        self._model_dir = model_dir
        self._rank, self._world_size = rank, world_size
        self._temperature = temperature
        self._total_optimizer_steps = total_steps * config.updates_per_batch
        _fix_threads_and_kernels(config, world_size=world_size, deterministic=deterministic)
        torch.manual_seed(seed)
        on_gpu = config.gpus_per_rank > 0
        place = RankPlace(rank=rank, world_size=world_size, local_rank=local_rank, on_gpu=on_gpu, rendezvous=rendezvous)
        join_ranks(place, timeout_s=max(config.start_deadline_s, config.step_deadline_s))
        self._model = build_policy(
            model_dir,
            dtype=config.dtype,
            gradient_checkpointing=config.gradient_checkpointing,
            trust_remote_code=trust_remote_code,
            on_gpu=on_gpu,
        )
        # Copied before DeepSpeed takes the policy apart.
        self._reference = freeze_copy(self._model) if config.grpo.kl_coef > 0 else None
        self._engine = TrainingEngine(self._model, config, world_size=world_size)
        if self._reference is not None:
            self._reference.to(self._engine.device)
        self._sender = WeightSender(self._model, dtype=weight_dtype, chunk_bytes=chunk_mib << 20, rank=rank)
        self._optimizer_steps = 0
        self._bad_steps_in_a_row = 0
        self.policy_version = 0
        """Training steps that changed the weights."""

    def train_step(self, batch: TrainBatch) -> StepOutput:
        """One training step: `updates_per_batch` optimizer steps on the batch.

        An update whose loss or gradient is not finite is not applied, on any rank, and ends the step.
        """
        assert batch.policy_version == self.policy_version, (batch.policy_version, self.policy_version)
        started_s = time.monotonic()
        plan = plan_step(batch, self._config.grpo)
        if plan.num_completions == 0:
            return self._nothing_to_train_on(batch, plan)
        shares = assign(plan.sequences, num_ranks=self._world_size, micro_batch_tokens=self._config.micro_batch_tokens)
        micro_batches = [collate(sequences).to(self._engine.device) for sequences in shares[self._rank]]
        ref_logprobs = [self._reference_logprobs(micro_batch) for micro_batch in micro_batches]
        updates: list[_Update] = []
        for _ in range(self._config.updates_per_batch):
            updates.append(self._update(micro_batches, ref_logprobs))
            if not updates[-1].applied:
                break
        bad = not updates[-1].applied
        self._bad_steps_in_a_row = self._bad_steps_in_a_row + 1 if bad else 0
        skipped = not updates[0].applied
        self.policy_version += not skipped
        return StepOutput(
            step=batch.step,
            policy_version=self.policy_version,
            skipped=skipped,
            bad_steps_in_a_row=self._bad_steps_in_a_row,
            metrics={
                **_update_metrics(updates, with_reference=self._reference is not None),
                "train/num_sequences": float(len(plan.sequences)),
                "train/padding_fraction": _padding_fraction(shares),
                "train/seconds": time.monotonic() - started_s,
            },
            sequences=self._sequence_outputs(plan, micro_batches, updates[0], ref_logprobs),
            reason=updates[-1].why_not_applied(len(updates), self._config.updates_per_batch) if bad else "",
        )

    def weight_manifest(self) -> WeightManifest:
        """Begins a transfer of the current weights. All ranks call this, every `weight_chunk` and `weights_digest`."""
        return self._sender.manifest(self.policy_version)

    def weight_chunk(self, index: int) -> WeightChunk | None:
        """Chunk `index` of the manifest on rank 0, None on other ranks."""
        return self._sender.chunk(index)

    def weights_digest(self) -> str:
        """Digest of the transfer after its last chunk; empty on ranks other than 0."""
        return self._sender.digest()

    def score_tokens(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probabilities (nats, temperature 1) of tokens 1 to n - 1 of each sequence under the current weights.

        The same forward pass as in training. All ranks call it with the same sequences and have the same result.
        """
        wanted = [_whole_sequence(i, token_ids) for i, token_ids in enumerate(sequences)]
        (parts,) = assign(wanted, num_ranks=1, micro_batch_tokens=self._config.micro_batch_tokens)
        scores: dict[int, tuple[float, ...]] = {}
        for part in parts:
            micro_batch = collate(part).to(self._engine.device)
            with torch.no_grad():
                logprobs_N, _ = self._engine(
                    micro_batch.input_ids_BT, micro_batch.positions_N, micro_batch.targets_N, 1.0
                )
            scores.update({key[1]: values for key, values in _by_sequence(micro_batch, logprobs_N).items()})
        return [list(scores[i]) for i in range(len(sequences))]

    def save(self, directory: str) -> None:
        """Writes everything the learner needs to go on into a directory that is not yet published. Collective."""
        state = checkpoint.LearnerState(
            policy_version=self.policy_version,
            optimizer_steps=self._optimizer_steps,
            bad_steps_in_a_row=self._bad_steps_in_a_row,
            world_size=self._world_size,
            zero_stage=self._config.zero_stage,
        )
        checkpoint.save(self._engine, self._model, state, Path(directory), rank=self._rank)

    def load(self, directory: str) -> None:
        """Goes on from a published checkpoint. Collective. Errors: `CheckpointError`."""
        state = checkpoint.load(self._engine, Path(directory), rank=self._rank, world_size=self._world_size)
        self.policy_version = state.policy_version
        self._optimizer_steps = state.optimizer_steps
        self._bad_steps_in_a_row = state.bad_steps_in_a_row

    def export(self, directory: str) -> None:
        """Writes the current weights as a Hugging Face directory. Collective; rank 0 writes. Errors: `ModelError`."""
        weights = checkpoint.full_weights(self._model, rank=self._rank)
        if self._rank == 0:
            checkpoint.export_hf(weights, Path(self._model_dir), Path(directory))

    def close(self) -> None:
        """Leaves the other ranks. The worker cannot be used afterwards."""
        leave_ranks()

    def _reference_logprobs(self, micro_batch: MicroBatch) -> Tensor | None:
        if self._reference is None:
            return None
        with torch.no_grad():
            logprobs_N, _ = self._reference(
                micro_batch.input_ids_BT, micro_batch.positions_N, micro_batch.targets_N, self._temperature
            )
        return logprobs_N

    def _update(self, micro_batches: Sequence[MicroBatch], ref_logprobs: Sequence[Tensor | None]) -> _Update:
        """One optimizer step over all micro-batches."""
        grpo = self._config.grpo
        totals = torch.zeros(1 + len(SUM_NAMES), dtype=torch.float64, device=self._engine.device)
        largest = torch.zeros((), dtype=torch.float64, device=self._engine.device)
        policy_logprobs: list[Tensor] = []
        entropies: list[Tensor] = []
        for micro_batch, ref_logprobs_N in zip(micro_batches, ref_logprobs, strict=True):
            logprobs_N, entropy_N = self._engine(
                micro_batch.input_ids_BT, micro_batch.positions_N, micro_batch.targets_N, self._temperature
            )
            loss, sums = grpo_loss(
                policy_logprobs_N=logprobs_N,
                rollout_logprobs_N=micro_batch.rollout_logprobs_N,
                ref_logprobs_N=ref_logprobs_N,
                advantages_N=micro_batch.advantages_N,
                token_weights_N=micro_batch.token_weights_N,
                mask_N=micro_batch.mask_N,
                entropy_N=entropy_N,
                clip_eps=grpo.clip_eps,
                clip_eps_high=grpo.clip_eps if grpo.clip_eps_high is None else grpo.clip_eps_high,
                kl_coef=grpo.kl_coef,
            )
            self._engine.backward(loss)
            totals += torch.cat([loss.detach().double()[None], sums.as_vector()])
            largest = torch.maximum(largest, sums.max_abs_log_ratio)
            policy_logprobs.append(logprobs_N.detach())
            entropies.append(entropy_N.detach())
        torch.distributed.all_reduce(totals)
        torch.distributed.all_reduce(largest, op=torch.distributed.ReduceOp.MAX)
        lr = lr_at(
            self._optimizer_steps,
            peak_lr=self._config.lr,
            schedule=self._config.schedule,
            total_steps=self._total_optimizer_steps,
        )
        result = self._engine.step(lr)
        self._optimizer_steps += result.applied
        return _Update(
            applied=result.applied,
            grad_norm=result.grad_norm,
            lr=lr,
            loss=float(totals[0]),
            sums=totals[1:].cpu(),
            max_abs_log_ratio=float(largest),
            policy_logprobs=tuple(policy_logprobs),
            entropies=tuple(entropies),
        )

    def _sequence_outputs(
        self,
        plan: StepPlan,
        micro_batches: Sequence[MicroBatch],
        update: _Update | None,
        ref_logprobs: Sequence[Tensor | None],
    ) -> tuple[SequenceOutput, ...]:
        """This rank's share; rank 0 also answers for the completions that no rank computed. `update` is the first."""
        policy = _by_sequences(micro_batches, update.policy_logprobs if update else ())
        entropies = _by_sequences(micro_batches, update.entropies if update else ())
        reference = _by_sequences(micro_batches, ref_logprobs)
        computed = {(sequence.group_id, sequence.sample_index) for sequence in plan.sequences}
        return tuple(
            SequenceOutput(
                group_id=group_id,
                sample_index=sample_index,
                advantage=advantage,
                policy_logprobs=policy.get((group_id, sample_index), ()),
                ref_logprobs=reference.get((group_id, sample_index), ()),
                entropies=entropies.get((group_id, sample_index), ()),
            )
            for group_id, sample_index, advantage in plan.advantages
            if (group_id, sample_index) in policy or (self._rank == 0 and (group_id, sample_index) not in computed)
        )

    def _nothing_to_train_on(self, batch: TrainBatch, plan: StepPlan) -> StepOutput:
        """Not a bad step: nothing was wrong with the numbers, there were none."""
        return StepOutput(
            step=batch.step,
            policy_version=self.policy_version,
            skipped=True,
            bad_steps_in_a_row=self._bad_steps_in_a_row,
            metrics={"train/num_sequences": 0.0, "train/tokens": 0.0},
            sequences=self._sequence_outputs(plan, (), None, ()),
            reason="no completion of the batch has a token to train on",
        )


def _update_metrics(updates: Sequence[_Update], *, with_reference: bool) -> dict[str, float]:
    """Means over the updates of a step. What is not finite stays so: it is the reader's warning."""
    num_updates = len(updates)
    token_means = means(torch.stack([update.sums for update in updates]).sum(dim=0))
    metrics = {f"train/{name}": value for name, value in token_means.items() if name != "kl_ref" or with_reference}
    return {
        "train/loss": sum(update.loss for update in updates) / num_updates,
        "train/grad_norm": sum(update.grad_norm for update in updates) / num_updates,
        "train/lr": updates[-1].lr,
        **metrics,
        "train/max_abs_log_ratio": max(update.max_abs_log_ratio for update in updates),
        "train/tokens": float(updates[0].sums[0]),
    }


def _padding_fraction(shares: Sequence[Sequence[Sequence[TrainSequence]]]) -> float:
    """Computed positions that hold no token, over all ranks."""
    parts = [part for share in shares for part in share if part]
    lengths = [[len(sequence.token_ids) for sequence in part] for part in parts]
    computed = sum(max(part) * len(part) for part in lengths)
    return 1.0 - sum(map(sum, lengths)) / computed if computed else 0.0


def _by_sequences(
    micro_batches: Sequence[MicroBatch], values: Sequence[Tensor | None]
) -> dict[tuple[str, int], tuple[float, ...]]:
    """`_by_sequence` of all micro-batches that have values."""
    found: dict[tuple[str, int], tuple[float, ...]] = {}
    for micro_batch, values_N in zip(micro_batches, values, strict=True):
        if values_N is not None:
            found.update(_by_sequence(micro_batch, values_N))
    return found


def _by_sequence(micro_batch: MicroBatch, values_N: Tensor) -> dict[tuple[str, int], tuple[float, ...]]:
    """Values of the completion tokens of each sequence, by (group_id, sample_index)."""
    values = values_N.tolist()
    found: dict[tuple[str, int], tuple[float, ...]] = {}
    start = 0
    for sequence in micro_batch.sequences:
        end = start + sequence.num_completion_tokens
        found[sequence.group_id, sequence.sample_index] = tuple(values[start:end])
        start = end
    return found


def _whole_sequence(index: int, token_ids: Sequence[int]) -> TrainSequence:
    """All tokens but the first as if sampled; never trained on."""
    num_scored = len(token_ids) - 1
    assert num_scored >= 1, f"sequence {index} has {len(token_ids)} tokens; the first of two is scored at the earliest"
    return TrainSequence(
        group_id="",
        sample_index=index,
        token_ids=tuple(token_ids),
        num_prompt_tokens=1,
        rollout_logprobs=(0.0,) * num_scored,
        loss_mask=(True,) * num_scored,
        advantage=0.0,
        token_weight=0.0,
    )


def _fix_threads_and_kernels(config: LearnerConfig, *, world_size: int, deterministic: bool) -> None:
    num_cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(config.threads or max(1, num_cores // world_size))
    if config.gpus_per_rank == 0:
        _keep_freed_memory()
    if deterministic:
        # Read by cuBLAS when it starts; without it matrix products on a GPU raise in deterministic mode.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Nothing here reads memory that it did not write, and filling DeepSpeed's buffers takes longer than a step.
        torch.utils.deterministic.fill_uninitialized_memory = False


def _keep_freed_memory() -> None:
    """Tells glibc's malloc to reuse large blocks rather than to return them to the system after each tensor.

    Otherwise every activation of every micro-batch is mapped, zeroed and page-faulted anew, which takes a large share
    of a step on a CPU. The process keeps its peak. Other C libraries have no such setting and go without.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
