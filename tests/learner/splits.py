"""Objectives that could care how a step is split, and workers that take one step with each, split in one way."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from learner.algorithm.plan import PlanSettings, plan_step, shares
from learner.types import ComputedTokens, GroupAdvantages, GroupRewards, RankShare, TrainBatch, TrainSequence
from rollout.types import read_only
from tests.learner.samples import groups_of, scored_group, scored_of

BASE: dict[str, Any] = {"lr": 0.1, "betas": [0.0, 0.0], "eps": 1.0, "max_grad_norm": 0.0, "threads": 1}
LAYOUTS = {"1x16": [16], "2x8": [8], "4x4": [4], "ragged": [1, 7, 3, 5]}
"""Sequences of each micro-batch, again and again."""
KL = {"coef": 0.1}
ENTROPY = {"coef": 0.05}
MASK = {"kind": "ratio_mask", "min": 0.8, "max": 1.25}
REWARD_KL = {"coef": 0.3, "estimator": "k1", "place": "reward"}
BETA = 0.3
SEVERAL = {"mini_batches": 2, "updates_per_batch": 2, "lr": 0.01}
"""Four updates, each from where the one before came: not so far that rounding grows on the way."""


def own_advantage(groups: Sequence[GroupRewards]) -> list[GroupAdvantages]:
    """Against the mean of the whole batch."""
    rewards = [reward for group in groups for reward in group.scored]
    mean = sum(rewards) / len(rewards)
    return [group.filled([reward - mean for reward in group.scored]) for group in groups]


def surrogate(kind: str, **fields: Any) -> dict[str, Any]:
    return {"surrogate": {"kind": kind, **fields}, "kl": KL, "entropy": ENTROPY}


def masked(correction: dict[str, Any], count: str = "kept", **objective: Any) -> dict[str, Any]:
    more = {"corrections": [correction], "aggregation": {"count": count}, "kl": KL, "entropy": ENTROPY}
    return {**more, **objective}


CASES: dict[str, dict[str, Any]] = {
    "interpolated": {"objective": {"proximal": "interpolated"}},
    **{
        f"{kind} {count}": {"objective": masked(MASK, aggregation={"kind": kind, "count": count})}
        for kind in ("sequence_mean", "token_mean", "token_sum", "sequence_sum", "prompt_mean")
        for count in ("trained", "kept")
    },
    "rloo with kl": {
        "objective": {
            "advantage": {"kind": "group", "baseline": "leave_one_out", "scale": "none"},
            "kl": REWARD_KL,
            "entropy": ENTROPY,
        }
    },
    "reinforce++ with kl": {"objective": {"advantage": {"kind": "reinforce_plus_plus"}, "kl": REWARD_KL}},
    "own with kl": {
        "objective": {
            "advantage": {"kind": "own", "function": "tests.learner.splits:own_advantage"},
            "kl": REWARD_KL,
        }
    },
    "reinforce++": {"objective": {"advantage": {"kind": "reinforce_plus_plus"}, "kl": {"coef": 0.0}}},
    "reinforce++ baseline": {
        "objective": {
            "advantage": {"kind": "reinforce_plus_plus", "baseline": "group_mean"},
            "kl": {"coef": 0.1, "estimator": "k2"},
        }
    },
    "sequence mask": {"objective": masked({**MASK, "level": "sequence"})},
    "geometric mask": {"objective": masked({**MASK, "level": "geometric", "min": 0.95, "max": 1.1})},
    "off-policy mask": {"objective": masked({"kind": "off_policy_sequence", "threshold": 0.02})},
    "top entropy": {"objective": masked({"kind": "top_entropy", "share": 0.4})},
    "top entropy, zeros": {"objective": masked({"kind": "top_entropy", "share": 0.4}, "trained", kl={"coef": 0.0})},
    "truncated weights": {
        "objective": {"proximal": "recomputed", "corrections": [{"kind": "truncate", "level": "sequence", "max": 1.5}]}
    },
    "mini-batches": {**SEVERAL, "objective": {"kl": KL, "entropy": ENTROPY}},
    "mini-batches, kept": {
        **SEVERAL,
        "objective": masked(MASK, proximal="recomputed", aggregation={"kind": "token_mean", "count": "kept"}),
    },
    "gspo": {"objective": surrogate("ppo_clip", level="sequence", eps=0.02)},
    "gspo token": {"objective": surrogate("ppo_clip", level="sequence_token", eps=0.02)},
    "gmpo": {"objective": surrogate("gmpo", eps=0.1)},
    "unbiased k3": {"objective": {"kl": {"coef": 0.1, "unbiased": True}}},
    "zeros are not computed": {"objective": {"kl": {"coef": 0.0}}},
    "zeros are looked at": {"objective": {"kl": {"coef": 0.0}}, "diagnostics": "all", "mini_batches": 2},
}
WATCHED = ("rloo with kl", "reinforce++ with kl")
"""Cases whose advantages are made on the ranks."""


def batch_near(computed: ComputedTokens, version: int) -> TrainBatch:
    """Four groups of four, one of equal rewards; each token was sampled with a probability near the policy's. Rounded,
    so that it is one batch for every layout."""
    values, rng = computed.by_completion(), random.Random(5)
    groups = []
    for scored in plain_batch().groups:
        group = scored.group.payload
        completions = [
            replace(
                completion,
                logprobs=read_only(
                    [
                        round(float(x), 2) + rng.uniform(-0.4, 0.4)
                        for x in values[scored.group_id, completion.sample_index].policy_logprobs
                    ],
                    np.float32,
                ),
            )
            for completion in group.completions
        ]
        groups.append(scored_of(replace(group, completions=tuple(completions)), scored.rewards))
    return TrainBatch(step=version, policy_version=version, groups=tuple(groups))


def plain_batch() -> TrainBatch:
    rng = random.Random(2)
    rewards = [[1.0, 0.0, 0.0, 1.0], [0.5, 0.25, 1.0, 0.0], [0.1, 0.7, 0.2, 0.1], [1.0] * 4]
    groups = [scored_group(i, of, rng=rng, masked_first=i == 1) for i, of in enumerate(rewards)]
    return TrainBatch(step=0, policy_version=0, groups=tuple(groups))


def aim(worker: Any, fields: dict[str, Any]) -> None:
    """The worker goes on with another objective."""
    from learner.config import LearnerConfig
    from learner.updates import Updates

    fixed = {"num_ranks": worker._world_size, "zero_stage": worker._config.zero_stage}
    worker._config = LearnerConfig.model_validate({**BASE, **fixed, **fields})
    worker._updates = Updates(worker._config, worker._engine, worker._reference, worker._temperature)


def share_of(worker: Any, batch: TrainBatch, layout: str) -> RankShare:
    """Dealt unevenly: of two ranks the first has two of three sequences, so that groups are on both."""
    is_packed = layout.endswith(" packed")
    layout = layout.removesuffix(" packed")
    settings = PlanSettings(learner=worker._config, max_tokens=12, seed=3)
    plan = plan_step(batch, settings)
    dealt: RankShare = shares(batch, plan, settings, num_ranks=worker._world_size)[worker._rank]

    def parts_of(sequences: Sequence[TrainSequence]) -> tuple[tuple[TrainSequence, ...], ...]:
        if worker._world_size == 1:
            return tuple(cut(sequences, layout))
        ranks = [
            list(cut([s for i, s in enumerate(sequences) if (i % 3 == 0) == bool(rank)], layout)) for rank in (0, 1)
        ]
        most = max(map(len, ranks))
        mine = ranks[worker._rank]
        return (*mine, *[()] * (most - len(mine)))

    return replace(
        dealt,
        packed=is_packed,
        mini_batches=tuple(parts_of(part) for part in plan.mini_batches),
        without_gradient=tuple(parts_of(part) for part in plan.without_gradient),
    )


def cut(sequences: Sequence[TrainSequence], layout: str) -> Iterator[tuple[TrainSequence, ...]]:
    rest = list(sequences) if layout != "ragged" else list(reversed(sequences))
    for size in itertools.cycle(LAYOUTS[layout]):
        if not rest:
            return
        yield tuple(rest[:size])
        rest = rest[size:]


def trace(worker: Any, layout: str, out: Path) -> dict[str, Any]:
    """All cases, each from the same weights; what they change the weights by goes into a file. The reference is another
    model, near by."""
    rng = np.random.default_rng(4)
    reference = {name: weight.numpy().copy() for name, weight in worker._reference.weights().items()}
    noisy = {name: weight + rng.normal(0.0, 0.02, weight.shape) for name, weight in sorted(reference.items())}
    worker._reference.load({name: torch_of(weight) for name, weight in noisy.items()})
    start, before = held_weights(worker), flat_weights(worker)
    known = exchanged(worker, trained(worker, {}, plain_batch(), layout)[1])
    updates, metrics, watched = [], {}, {}
    for name, fields in CASES.items():
        for tensor, value in start:
            tensor.copy_(value)
        batch = batch_near(known, worker.policy_version)
        output, computed, seen = trained(worker, fields, batch, layout)
        assert not output.skipped, output.reason
        metrics[name] = dict(output.metrics)
        if name in WATCHED:
            watched[name] = advantages_of(seen), computed.by_completion()
        updates.append(flat_weights(worker) - before)
    if worker._rank == 0:
        np.save(out, np.stack(updates))
    return {"metrics": metrics, "watched": watched}


def trained(worker: Any, fields: dict[str, Any], batch: TrainBatch, layout: str) -> tuple[Any, ComputedTokens, Any]:
    """One step; with the micro-batches of it."""
    aim(worker, fields)
    groups, share = groups_of(batch), share_of(worker, batch, layout)
    seen = watch(worker)
    output, computed = worker.train_step(share, *(groups[i] for i in share.group_ids))
    return output, computed, seen


def held_weights(worker: Any) -> list[tuple[Any, Any]]:
    """(tensor, copy of it) of all that holds weights in this process: the model's, and the optimizer's share."""
    optimizer = worker._engine.deepspeed.optimizer
    tensors = [weight.data for weight in worker._model.named_weights().values() if weight.numel()]
    tensors += [weight.ds_tensor.data for weight in worker._model.parameters() if hasattr(weight, "ds_tensor")]
    for name in ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat"):
        tensors += [weight.data for weight in getattr(optimizer, name, [])]
    return [(tensor, tensor.clone()) for tensor in tensors]


def torch_of(values: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(values.astype(np.float32))


def exchanged(worker: Any, computed: ComputedTokens) -> ComputedTokens:
    """What both ranks computed, on each."""
    import torch

    of_ranks: list[Any] = [None] * worker._world_size
    torch.distributed.all_gather_object(of_ranks, computed)
    fields = ("policy_logprobs_N", "ref_logprobs_N", "entropies_N")
    return ComputedTokens(
        keys=tuple(key for of in of_ranks for key in of.keys),
        lengths=tuple(length for of in of_ranks for length in of.lengths),
        **{name: np.concatenate([getattr(of, name) for of in of_ranks]) for name in fields},
    )


def watch(worker: Any) -> list[Any]:
    """Where the micro-batches of the next step will be found."""
    seen: list[Any] = []
    run = worker._updates.run

    def kept(*args: Any, **kwargs: Any) -> Any:
        updates, computed = run(*args, **kwargs)
        seen.extend(computed)
        return updates, computed

    worker._updates.run = kept
    return seen


def advantages_of(prepared: Sequence[Any]) -> dict[Any, np.ndarray]:
    found = {}
    for one in prepared:
        for row, sequence in enumerate(one.tokens.sequences):
            found[sequence.key] = one.tokens.advantages_N[one.tokens.index_N == row].numpy()
    return found


def flat_weights(worker: Any) -> np.ndarray:
    from learner.saving.checkpoint import full_weights

    weights = full_weights(worker._model, rank=worker._rank)
    return np.concatenate([weight.numpy().ravel() for weight in weights.values()]) if weights else np.zeros(0)
