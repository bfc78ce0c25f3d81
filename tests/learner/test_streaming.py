"""Gradients that are accumulated group by group, and the step of all at once: the same update, for objectives of every
kind that can be streamed, every ZeRO stage, and whatever is left to the step itself.

As in `test_invariance`: AdamW without memory and with an epsilon of 1, always from the same weights.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.algorithm.plan import PlanSettings, plan_step, shares
from learner.backend.engine import RendezvousAddress
from learner.types import ComputedTokens, StepOutput, TrainBatch
from rollout.errors import StepGivenUpError
from tests.learner.ranks import run_ranks
from tests.learner.samples import groups_of, save_toy_model, scored_of, train_batch, train_step
from tests.learner.splits import (
    BASE,
    ENTROPY,
    KL,
    MASK,
    aim,
    batch_near,
    exchanged,
    flat_weights,
    held_weights,
    masked,
    plain_batch,
    surrogate,
    torch_of,
)
from tests.learner.test_worker import make_worker, weights_of

pytestmark = pytest.mark.integration

AGGREGATIONS = ("sequence_mean", "token_mean", "token_sum", "sequence_sum", "prompt_mean")
CASES: dict[str, dict[str, Any]] = {
    **{kind: {"objective": masked(MASK, aggregation={"kind": kind, "count": "trained"})} for kind in AGGREGATIONS},
    "leave one out": {
        "objective": {"advantage": {"kind": "group", "baseline": "leave_one_out", "scale": "none"}, "kl": KL}
    },
    "pass@k": {"objective": {"advantage": {"kind": "pass_at_k", "k": 2}, "kl": KL, "entropy": ENTROPY}},
    "interpolated": {"objective": {"proximal": "interpolated"}},
    "truncated weights": {
        "objective": {"proximal": "recomputed", "corrections": [{"kind": "truncate", "level": "sequence", "max": 1.5}]}
    },
    "exact kl": {"objective": {"kl": {"coef": 0.1, "estimator": "exact"}}},
    "off-policy mask": {"objective": masked({"kind": "off_policy_sequence", "threshold": 0.02}, "trained")},
    "adaptive entropy": {"objective": {"entropy": {"coef": 0.05, "target": 2.0}}},
    "gspo": {"objective": surrogate("ppo_clip", level="sequence", eps=0.02)},
    "gmpo": {"objective": surrogate("gmpo", eps=0.1)},
    "zeros are not computed": {"objective": {"kl": {"coef": 0.0}}},
    "zeros are looked at": {"objective": {"kl": {"coef": 0.0}}, "diagnostics": "all"},
}
WAYS: dict[str, Sequence[Sequence[int]]] = {
    "some are left": [[0], [1, 2]],
    "the last first": [[3], [0]],
    "nothing is left": [[2], [3], [0], [1]],
    "nothing was early": [],
}
"""Places in the batch of the groups that are accumulated together, in this order; the step has the rest."""
SETTINGS = [(1, 0, 0.03), (1, 3, 0.03), (2, 0, 0.0), (2, 1, 0.0), (2, 2, 0.03), (2, 3, 0.0)]
"""(ranks, ZeRO stage, largest norm of a gradient)"""
Setting = tuple[int, int, float]


def cases_of(setting: Setting) -> dict[str, dict[str, Any]]:
    """All where one rank has whole weights, and every second one elsewhere: two settings of two ranks see each."""
    place = SETTINGS.index(setting)
    return CASES if place == 0 else dict(list(CASES.items())[place % 2 :: 2])


def name_of(setting: Setting) -> str:
    return " ".join(map(str, setting))


def streamed(worker: Any, batch: TrainBatch, way: Sequence[Sequence[int]]) -> tuple[StepOutput, list[ComputedTokens]]:
    """A training step as the controller asks for it."""
    config = worker._config.model_copy(update={"streaming": True})
    settings = PlanSettings(learner=config, max_tokens=12, packed=worker.can_pack())
    groups, early, computed = groups_of(batch), set[str](), []
    for places in way:
        part = replace(batch, groups=tuple(batch.groups[i] for i in places))
        plan = plan_step(part, settings)
        if plan.computed:
            share = shares(part, plan, settings, num_ranks=worker._world_size)[worker._rank]
            computed.append(worker.accumulate(share, *(groups[i] for i in share.group_ids)))
        early |= {scored.group_id for scored in part.groups}
        # What a sampler that is started anew asks for meanwhile.
        worker.score_tokens([[3, 4, 5]])
        weights_of(worker)
    plan = plan_step(batch, settings)
    share = shares(batch, plan, settings, num_ranks=worker._world_size, accumulated=early)[worker._rank]
    assert not early & set(share.group_ids)
    output, rest = worker.train_step(share, *(groups[i] for i in share.group_ids))
    return output, [*computed, rest]


def one_after_the_other(worker: Any, cases: dict[str, Any], out: Path) -> dict[tuple[str, str], Any]:
    """Each case whole and in every way. The reference is another model, near by."""
    rng = np.random.default_rng(4)
    reference = {name: weight.numpy().copy() for name, weight in worker._reference.weights().items()}
    noisy = {name: weight + rng.normal(0.0, 0.02, weight.shape) for name, weight in sorted(reference.items())}
    worker._reference.load({name: torch_of(weight) for name, weight in noisy.items()})
    start, before = held_weights(worker), flat_weights(worker)
    known = exchanged(worker, train_step(worker, plain_batch())[1])
    updates, found = [], dict[tuple[str, str], Any]()
    clip = {"max_grad_norm": worker._config.max_grad_norm}
    for name, fields in cases.items():
        for how in ("whole", *WAYS):
            aim(worker, {**fields, **clip})  # anew, as an entropy bonus may move with each step
            for tensor, value in start:
                tensor.copy_(value)
            worker.policy_version = 3  # what an interpolated policy is follows from its age
            batch = batch_near(known, 3)
            output, computed = (
                (lambda of: (of[0], [of[1]]))(train_step(worker, batch))
                if how == "whole"
                else streamed(worker, batch, WAYS[how])
            )
            assert not output.skipped, output.reason
            found[name, how] = dict(output.metrics), [of.by_completion() for of in computed]
            updates.append(flat_weights(worker) - before)
    if worker._rank == 0:
        np.save(out, np.stack(updates))
    return found


def all_settings(
    rank: int, world_size: int, addresses: list[RendezvousAddress], model_dir: str, out: str
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    # First what both do: DeepSpeed numbers the modules of a process, and ZeRO-3 compares the numbers of the ranks.
    ordered = sorted(SETTINGS, key=lambda setting: -setting[0])
    for i, (address, setting) in enumerate(zip(addresses, ordered, strict=False)):
        num_ranks, stage, clip = setting
        if num_ranks == 1 and i % 2 != rank:
            continue
        fields = {**BASE, "zero_stage": stage, "max_grad_norm": clip}
        worker = make_worker(rank if num_ranks == 2 else 0, num_ranks, address, model_dir, **fields)
        name = name_of(setting)
        found[name] = one_after_the_other(worker, cases_of(setting), Path(out) / f"{name}.npy")
        worker.close()
    if rank == 0:
        found["given up"] = given_up(addresses[-1], model_dir)
    return found


def given_up(address: RendezvousAddress, model_dir: str) -> list[str]:
    """A step that is given up between two of its parts; digests of the weights on the way."""
    worker = make_worker(0, 1, address, model_dir, micro_batch_tokens=16)
    batch, digests = train_batch(0), [weights_of(worker)[1]]
    config = worker._config.model_copy(update={"streaming": True})
    settings = PlanSettings(learner=config, max_tokens=12, packed=worker.can_pack())
    groups = groups_of(batch)

    def accumulate(place: int) -> None:
        part = replace(batch, groups=(batch.groups[place],))
        (share,) = shares(part, plan_step(part, settings), settings, num_ranks=1)
        worker.accumulate(share, *(groups[i] for i in share.group_ids))

    accumulate(0)
    scores = worker.score_tokens([[3, 4, 5]])
    passes = worker.hold_step(0)
    assert passes, "parts are counted together"
    worker.decide_step(0, None)
    accumulate(1)
    held = worker.hold_step(0)
    assert held > passes
    worker.decide_step(0, held)
    # What is asked between two parts is no pass of the step.
    assert np.array_equal(worker.score_tokens([[3, 4, 5]])[0], scores[0])
    digests.append(weights_of(worker)[1])
    with pytest.raises(StepGivenUpError):
        accumulate(2)
    digests.append(weights_of(worker)[1])
    worker.close()
    return digests


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("streaming")
    model_dir = save_toy_model(root / "model")
    by_rank = run_ranks(all_settings, 2, len(SETTINGS) + 1, model_dir, str(root), deadline_s=540.0)
    return {"ranks": by_rank, "updates": {of: np.load(root / f"{name_of(of)}.npy") for of in SETTINGS}}


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_the_update_is_that_of_the_whole_batch(results: dict[str, Any], setting: Setting) -> None:
    cases = cases_of(setting)
    updates = results["updates"][setting].reshape(len(cases), 1 + len(WAYS), -1)
    for name, (whole, *ways) in zip(cases, updates, strict=True):
        assert np.abs(whole).max() > (2e-4 if setting[2] else 1e-3), name
        for way, update in zip(WAYS, ways, strict=True):
            np.testing.assert_allclose(update, whole, rtol=0, atol=1e-6, err_msg=f"{name}, {way}")


@pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
def test_the_figures_are_those_of_the_whole_batch(results: dict[str, Any], setting: Setting) -> None:
    of_rank = next(of[name_of(setting)] for of in results["ranks"] if name_of(setting) in of)
    for name in cases_of(setting):
        expected, _ = of_rank[name, "whole"]
        for way in WAYS:
            found, _ = of_rank[name, way]
            assert found.keys() == expected.keys()
            for metric in expected.keys() - {"train/seconds", "train/padding_fraction"}:
                assert found[metric] == pytest.approx(expected[metric], rel=5e-5, abs=2e-6), (name, way, metric)


def test_what_is_computed_of_each_completion_is_there_once(results: dict[str, Any]) -> None:
    for of_rank in results["ranks"]:
        for setting in [of for of in SETTINGS if of[0] == 1 and name_of(of) in of_rank]:
            for name in cases_of(setting):
                (whole,) = of_rank[name_of(setting)][name, "whole"][1]
                for way in WAYS:
                    parts = of_rank[name_of(setting)][name, way][1]
                    assert sum(map(len, parts)) == len(whole), (name, way)
                    for key, values in {key: value for part in parts for key, value in part.items()}.items():
                        for field in ("policy_logprobs", "ref_logprobs", "entropies"):
                            found, expected = getattr(values, field), getattr(whole[key], field)
                            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_weights_stand_still_until_the_step(results: dict[str, Any]) -> None:
    digests = next(of["given up"] for of in results["ranks"] if "given up" in of)
    assert len(set(digests)) == 1


def test_scenes_have_what_they_are_for() -> None:
    """A batch with a group of equal rewards, of which some cases compute nothing."""
    batch = plain_batch()
    assert [scored.all_rewards_equal for scored in batch.groups] == [False, False, False, True]
    assert scored_of(batch.groups[0].group.payload, batch.groups[0].rewards) == batch.groups[0]
