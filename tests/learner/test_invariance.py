"""One update, however it is split over micro-batches, ranks and ZeRO stages, for every objective that could care.

Each layout goes through all cases on real workers, one training step each, always from the same weights. AdamW without
memory and with an epsilon of 1 moves a weight by lr g / (|g| + 1): what is compared is the gradient, and nothing is
blown up.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.backend.engine import RendezvousAddress
from learner.types import TrainBatch
from tests.learner.ranks import run_ranks
from tests.learner.samples import save_toy_model, scored_group, train_batch, train_step
from tests.learner.splits import BASE, BETA, CASES, WATCHED, plain_batch, trace
from tests.learner.test_worker import make_worker, weights_of

pytestmark = pytest.mark.integration

SINGLE = [
    *[("1x16", 0), ("2x8", 0), ("4x4", 0), ("ragged", 0), ("ragged", 1), ("ragged", 2), ("ragged", 3)],
    *[("1x16 packed", 0), ("4x4 packed", 0), ("ragged packed", 3)],
]
"""(layout, ZeRO stage) of one rank; every second one runs in the other process."""
DOUBLE = [("ragged", 0), ("4x4", 1), ("ragged", 2), ("ragged", 3), ("ragged packed", 1), ("2x8 packed", 3)]
"""The same of two ranks."""


def looked_at(rank: int, world_size: int, addresses: list[RendezvousAddress], model_dir: str, stage: int) -> list[Any]:
    """The same step with figures over what is computed, and over all."""
    found = []
    fields = {"zero_stage": stage, "objective": {"kl": {"coef": 0.0}}}
    for address, diagnostics in zip(addresses, ("computed", "all"), strict=True):
        worker = make_worker(rank, world_size, address, model_dir, **fields, diagnostics=diagnostics)
        groups = (*train_batch(0).groups, scored_group(9, [1.0] * 4, rng=random.Random(1), lengths=[9, 8, 7, 6]))
        output, computed = train_step(worker, TrainBatch(step=0, policy_version=0, groups=groups))
        found.append((dict(output.metrics), computed, weights_of(worker)[1]))
        worker.close()
    return found


def all_layouts(
    rank: int, world_size: int, addresses: list[RendezvousAddress], model_dir: str, out: str
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    rest = iter(addresses)
    # First what both do: DeepSpeed numbers the modules of a process, and ZeRO-3 compares the numbers of the ranks.
    for layout, stage in DOUBLE:
        worker = make_worker(rank, world_size, next(rest), model_dir, zero_stage=stage, **BASE)
        name = f"2 ranks, {layout}, ZeRO {stage}"
        found[name] = trace(worker, layout, Path(out) / f"{name}.npy")
        worker.close()
    for stage in (0, 3):
        found[f"looked at {stage}"] = looked_at(rank, world_size, [next(rest), next(rest)], model_dir, stage)
    for i, (layout, stage) in enumerate(SINGLE):
        address = next(rest)
        if i % 2 == rank:  # alone, while the other process has others
            worker = make_worker(0, 1, address, model_dir, zero_stage=stage, **BASE)
            name = f"1 rank, {layout}, ZeRO {stage}"
            found[name] = trace(worker, layout, Path(out) / f"{name}.npy")
            worker.close()
    return found


NAMES = [f"1 rank, {layout}, ZeRO {stage}" for layout, stage in SINGLE] + [
    f"2 ranks, {layout}, ZeRO {stage}" for layout, stage in DOUBLE
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("invariance")
    model_dir = save_toy_model(root / "model")
    by_rank = run_ranks(all_layouts, 2, len(NAMES) + 4, model_dir, str(root), deadline_s=540.0)
    updates = {name: np.load(root / f"{name}.npy") for name in NAMES}
    return {"ranks": by_rank, "updates": updates}


def of_layout(results: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(of[name] for of in results["ranks"] if name in of)
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_update_is_the_same_for_every_split(results: dict[str, Any], case: str) -> None:
    number = list(CASES).index(case)
    expected = results["updates"][NAMES[0]][number]
    assert np.abs(expected).max() > 3e-3, "an update that hardly moves anything would say nothing"
    for name in NAMES[1:]:
        np.testing.assert_allclose(results["updates"][name][number], expected, rtol=0, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_the_figures_are_the_same_for_every_split(results: dict[str, Any], case: str) -> None:
    expected = of_layout(results, NAMES[0])["metrics"][case]
    left_out = {"train/seconds", "train/padding_fraction"}
    for name in NAMES[1:]:
        for of in results["ranks"]:
            if name in of:
                found = of[name]["metrics"][case]
                assert found.keys() == expected.keys()
                for metric in expected.keys() - left_out:
                    assert found[metric] == pytest.approx(expected[metric], rel=5e-5, abs=2e-6), (name, metric)


def test_masks_leave_some_tokens_out_and_are_told_of_either_way(results: dict[str, Any]) -> None:
    metrics = of_layout(results, NAMES[0])["metrics"]
    for case in ("sequence mask", "geometric mask", "off-policy mask", "token_mean kept", "token_mean trained"):
        assert 0.03 < metrics[case]["train/masked_fraction"] < 0.95, case
        assert metrics[case]["train/computed_tokens"] == metrics[case]["train/tokens"], case
    # The first tokens of a group have one entropy: all four are kept where the threshold falls on them.
    assert metrics["top entropy"]["train/masked_fraction"] == pytest.approx(0.6, abs=0.05)
    assert metrics["top entropy"]["train/entropy"] > 1.1 * metrics["top entropy, zeros"]["train/entropy"]


def test_kl_is_taken_off_rewards_as_by_hand(results: dict[str, Any]) -> None:
    """Of what both ranks recorded of their tokens."""
    rewards = {
        (scored.group_id, i): result.reward
        for scored in plain_batch().groups
        for i, result in enumerate(scored.rewards)
    }
    masks = {
        (scored.group_id, completion.sample_index): completion.loss_mask
        for scored in plain_batch().groups
        for completion in scored.group.payload.completions
    }
    for name in (NAMES[0], "2 ranks, ragged, ZeRO 3"):
        for case in WATCHED:
            advantages: dict[Any, np.ndarray] = {}
            values: dict[Any, Any] = {}
            for of in results["ranks"]:
                if name in of:
                    advantages |= of[name]["watched"][case][0]
                    values |= of[name]["watched"][case][1]
            assert len(advantages) == len(values) == 16
            kl = {
                key: (of.policy_logprobs.astype(np.float64) - of.ref_logprobs) * masks[key]
                for key, of in values.items()
            }
            hand = by_hand_rloo if case == "rloo with kl" else by_hand_reinforce
            expected = hand(rewards, kl, masks)
            assert max(np.abs(of).max() for of in kl.values()) > 0.05
            for key in advantages:
                np.testing.assert_allclose(advantages[key][masks[key]], expected[key][masks[key]], rtol=0, atol=2e-6)


def by_hand_rloo(rewards: Any, kl: Any, masks: Any) -> dict[Any, np.ndarray]:
    left = {key: rewards[key] - BETA * kl[key].sum() for key in rewards}
    others = {key: [left[other] for other in left if other[0] == key[0] and other != key] for key in left}
    return {key: np.full(len(masks[key]), left[key] - sum(others[key]) / 3) for key in left}


def by_hand_reinforce(rewards: Any, kl: Any, masks: Any) -> dict[Any, np.ndarray]:
    left = {key: np.array([rewards[key] - BETA * kl[key][t:].sum() for t in range(len(kl[key]))]) for key in rewards}
    of_tokens = np.concatenate([left[key][masks[key]] for key in left])
    return {key: (left[key] - of_tokens.mean()) / (of_tokens.std() + 1e-8) for key in left}


@pytest.mark.parametrize("stage", [0, 3])
def test_figures_over_all_change_no_bit_of_the_weights(results: dict[str, Any], stage: int) -> None:
    (computed, _, digest), (over_all, _, digest_over_all) = results["ranks"][0][f"looked at {stage}"]
    assert digest
    assert digest == digest_over_all
    assert computed["train/computed_tokens"] == computed["train/tokens"] - 31
    assert over_all["train/computed_tokens"] == over_all["train/tokens"]
    assert over_all["train/num_sequences"] == computed["train/num_sequences"] + 5
    assert over_all["train/loss"] == pytest.approx(computed["train/loss"], rel=1e-6)
    assert over_all["train/grad_norm"] == computed["train/grad_norm"]


@pytest.mark.parametrize("stage", [0, 3])
def test_figures_over_all_are_over_all_trained_tokens(results: dict[str, Any], stage: int) -> None:
    """By what the ranks recorded of each token."""
    tokens: dict[Any, Any] = {}
    for of in results["ranks"]:
        tokens |= of[f"looked at {stage}"][1][1].by_completion()
    assert len(tokens) == 15
    few: dict[Any, Any] = {}
    for of in results["ranks"]:
        few |= of[f"looked at {stage}"][0][1].by_completion()
    assert len(few) == 10, "one has the mean of its group"
    for key, values in few.items():
        np.testing.assert_allclose(tokens[key].entropies, values.entropies, rtol=1e-5)
    means = [results["ranks"][0][f"looked at {stage}"][i][0]["train/entropy"] for i in (0, 1)]
    masks = {
        (scored.group_id, completion.sample_index): completion.loss_mask
        for scored in train_batch(0).groups
        for completion in scored.group.payload.completions
    }
    trained = [np.concatenate([of[k].entropies[masks.get(k, slice(None))] for k in of]) for of in (few, tokens)]
    for mean, of in zip(means, trained, strict=True):
        assert mean == pytest.approx(float(of.mean()), rel=1e-6)
    assert abs(trained[0].mean() - trained[1].mean()) > 0.02
