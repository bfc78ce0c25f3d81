"""Distillation and the exact KL on real DeepSpeed, against the same losses written down in plain PyTorch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learner.algorithm.plan import plan_step
from learner.backend.engine import RendezvousAddress
from learner.types import TrainBatch
from tests.learner.ranks import run_ranks
from tests.learner.samples import groups_of, save_toy_model, scored_of, settings_of, train_batch, train_step
from tests.learner.test_worker import make_worker, weights_of

pytestmark = pytest.mark.integration

TEMPERATURE = 0.9  # of `make_worker`
KINDS = ("sampled", "reverse", "forward", "jsd")
WHO = ("path", "policy_with", "start")
CASES: list[Any] = [(kind, who) for kind in KINDS for who in WHO]
EXACT_KL = "exact KL"
SHAPES: dict[str, tuple[int, int, int, list[Any]]] = {
    "one rank": (1, 0, 4096, [*CASES, EXACT_KL]),
    "two ranks, ZeRO-0": (2, 0, 48, [("jsd", "path"), ("sampled", "path"), ("forward", "start")]),
    "two ranks, ZeRO-3": (
        2,
        3,
        48,
        [("sampled", "policy_with"), ("reverse", "path"), ("forward", "policy_with"), ("jsd", "start"), EXACT_KL],
    ),
}
"""(ranks, ZeRO stage, tokens of a micro-batch, cases)"""
SPLIT = [(name, case) for name, shape in SHAPES.items() if name != "one rank" for case in shape[3]]
DEADLINE_S = 900.0
KL_FIELDS = {"objective": {"kl": {"coef": 0.5, "estimator": "exact"}}}


def batch_of(step: int) -> TrainBatch:
    """With a longer prompt for the teacher, and a group of equal rewards, which has no advantages."""
    batch = train_batch(step)
    groups = []
    for place, scored in enumerate(batch.groups):
        group = scored.group.payload
        shown = (*group.prompt.token_ids[:1], 9 + place, 5, *group.prompt.token_ids)
        results = [
            replace(result, reward=0.5 if place == 0 and result.reward is not None else result.reward)
            for result in scored.rewards
        ]
        groups.append(scored_of(replace(group, prompt=replace(group.prompt, teacher_token_ids=shown)), results))
    return replace(batch, groups=tuple(groups))


def fields_of(kind: str, who: str, **others: Any) -> dict[str, Any]:
    whose = {"path": "toy"} if who == "path" else {"policy_with": "solution"}
    if who == "start":
        whose["weights"] = "start"
    return {
        "teacher": {"kind": kind, "coef": 0.7, "beta": 0.3, **whose, **others},
        "objective": {"kl": {"coef": 0.0}, "surrogate": {"kind": "policy_gradient"}},
    }


def run_cases(
    rank: int, world_size: int, addresses: list[RendezvousAddress], models: tuple[str, str], cases: list[Any]
) -> list[Any]:
    """One step of each (fields, ZeRO stage, tokens of a micro-batch)."""
    found = []
    for address, (fields, stage, tokens) in zip(addresses, cases, strict=True):
        worker = make_worker(
            rank,
            world_size,
            address,
            models[0],
            teacher_dirs={"": models[1]},
            zero_stage=stage,
            micro_batch_tokens=tokens,
            max_grad_norm=0.0,
            **fields,
        )
        outputs = [train_step(worker, batch_of(step))[0] for step in range(2)]
        found.append((dict(outputs[0].metrics), dict(outputs[1].metrics), weights_of(worker)[0]))
        worker.close()
    return found


def by_hand(models: tuple[str, str], kind: str, who: str) -> tuple[float, float, float]:
    """(loss, norm of its gradient, mean divergence) of the first step."""
    import torch
    from transformers import AutoModelForCausalLM

    student = AutoModelForCausalLM.from_pretrained(models[0]).eval()
    teacher = AutoModelForCausalLM.from_pretrained(models[1]).eval() if who == "path" else student
    batch = batch_of(0)
    groups, losses, divergences = groups_of(batch), [], []
    trained = [
        (group, completion)
        for scored, group in zip(batch.groups, groups.values(), strict=True)
        for completion, result in zip(group.completions, scored.rewards, strict=True)
        if result.reward is not None and completion.loss_mask.any()
    ]
    assert len(trained) == 11, "those of the group without advantages too"
    for group, completion in trained:
        ids, length = completion.token_ids.tolist(), completion.num_tokens
        asked = list(group.prompt.token_ids)
        shown = asked if who == "path" else list(group.prompt.teacher_token_ids)

        def logprobs(model: Any, prompt: list[int], ids: list[int] = ids, length: int = length) -> Any:
            logits = model(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : len(prompt) - 1 + length]
            return (logits / TEMPERATURE).log_softmax(-1)

        p = logprobs(student, asked)
        with torch.no_grad():
            q = logprobs(teacher, shown)
        at = torch.arange(length), torch.tensor(ids)
        m = (0.3 * q.exp() + 0.7 * p.exp()).log()
        divergence = {
            "sampled": (p[at] - q[at]).detach(),
            "reverse": (p.exp() * (p - q)).sum(-1),
            "forward": (q.exp() * (q - p)).sum(-1),
            "jsd": 0.3 * (q.exp() * (q - m)).sum(-1) + 0.7 * (p.exp() * (p - m)).sum(-1),
        }[kind]
        ratio = (p[at] - torch.tensor(completion.logprobs)).exp()
        mask = torch.tensor(completion.loss_mask)
        token_loss = 0.7 * divergence * (ratio if kind == "sampled" else 1.0)
        losses.append(token_loss[mask].sum() / mask.sum() / len(trained))
        divergences += divergence[mask].tolist()
    loss = torch.stack(losses).sum()
    loss.backward()
    norm = torch.stack([w.grad.square().sum() for w in student.parameters()]).sum().sqrt()
    return loss.item(), norm.item(), sum(divergences) / len(divergences)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("distillation")
    models = save_toy_model(root / "student"), save_toy_model(root / "teacher", tied=False, seed=1)
    found: dict[str, Any] = {"models": models}
    for name, (num_ranks, stage, tokens, cases) in SHAPES.items():
        given = [(fields_of(*case) if case != EXACT_KL else KL_FIELDS, stage, tokens) for case in cases]
        results = run_ranks(run_cases, num_ranks, len(cases), models, given, deadline_s=DEADLINE_S)
        found[name] = dict(zip(cases, results[0], strict=True))
    return found


@pytest.mark.parametrize(("kind", "who"), CASES)
def test_loss_and_gradient_are_those_written_by_hand(taught: dict[str, Any], kind: str, who: str) -> None:
    loss, norm, divergence = by_hand(taught["models"], kind, who)
    for cases in (taught[name] for name in SHAPES):
        if (kind, who) in cases:
            metrics = cases[kind, who][0]
            assert metrics["train/loss"] == pytest.approx(loss, rel=1e-4, abs=1e-6)
            assert metrics["train/grad_norm"] == pytest.approx(norm, rel=1e-4)
            assert metrics["train/teacher_kl"] == pytest.approx(divergence, rel=1e-4)
            assert "train/kl_ref" not in metrics


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_of_the_start_stays_where_it_is(taught: dict[str, Any], kind: str) -> None:
    moving, staying = (taught["one rank"][kind, who] for who in ("policy_with", "start"))
    assert staying[0]["train/teacher_kl"] == pytest.approx(moving[0]["train/teacher_kl"], rel=1e-5)
    assert staying[1]["train/teacher_kl"] != pytest.approx(moving[1]["train/teacher_kl"], rel=5e-5)


@pytest.mark.parametrize(("shape", "case"), SPLIT, ids=str)
def test_the_weights_are_the_same_for_every_split(taught: dict[str, Any], shape: str, case: Any) -> None:
    expected, found = taught["one rank"][case][2], taught[shape][case][2]
    apart = np.concatenate([np.abs(found[name] - expected[name]).ravel() for name in expected])
    # AdamW moves a weight by about lr = 1e-3 however small its gradient is: one of hardly any shows its rounding.
    assert apart.mean() < 1e-7
    assert np.count_nonzero(apart > 1e-5) <= 5
    assert apart.max() < 2e-4


@pytest.mark.parametrize("shape", ["one rank", "two ranks, ZeRO-3"])
def test_the_exact_kl_is_nothing_at_the_reference_and_something_away_from_it(
    taught: dict[str, Any], shape: str
) -> None:
    first, second, _ = taught[shape][EXACT_KL]
    assert first["train/kl_ref"] == pytest.approx(0.0, abs=1e-6)
    assert second["train/kl_ref"] > 1e-5
    assert "train/teacher_kl" not in first


def test_in_bfloat16_with_several_updates_and_rewards(tmp_path: Path) -> None:
    models = save_toy_model(tmp_path / "student"), save_toy_model(tmp_path / "teacher", tied=False, seed=1)
    bf16 = {"dtype": "bfloat16", "gradient_checkpointing": True}
    cases = [
        (fields_of("reverse", "path") | bf16, 3, 48),
        (fields_of("reverse", "path"), 3, 48),
        (fields_of("sampled", "policy_with") | bf16, 3, 48),
        (fields_of("sampled", "policy_with") | {"updates_per_batch": 2, "mini_batches": 2}, 2, 48),
        (fields_of("sampled", "path", alone=False), 0, 48),
        (fields_of("sampled", "path", alone=True), 0, 48),
    ]
    rounded, exact, demonstrated, updated, both, alone = (
        case[0] for case in run_ranks(run_cases, 2, len(cases), models, cases, deadline_s=DEADLINE_S)[0]
    )
    assert rounded["train/teacher_kl"] == pytest.approx(exact["train/teacher_kl"], rel=0.02)
    assert rounded["train/grad_norm"] == pytest.approx(exact["train/grad_norm"], rel=0.05)
    assert np.isfinite(demonstrated["train/grad_norm"])
    assert np.isfinite(updated["train/grad_norm"])
    assert both["train/teacher_kl"] == pytest.approx(alone["train/teacher_kl"], rel=1e-6)
    assert abs(both["train/loss"] - alone["train/loss"]) > 1e-3, "rewards are learnt from too"


def test_a_teacher_computes_every_completion_and_alone_no_reward_counts() -> None:
    batch = batch_of(0)
    rewarded, taught_settings = settings_of(kl={"coef": 0.0}), settings_of(kl={"coef": 0.0})
    learner = taught_settings.learner.model_validate({**fields_of("sampled", "path")})
    # Of 11 scored ones the four of the group of equal rewards have no advantage, nor has the 0.5 beside 1 and 0.
    assert len(plan_step(batch, rewarded).sequences) == 6
    plan = plan_step(batch, replace(taught_settings, learner=learner))
    assert len(plan.sequences) == 11
    assert {sequence.advantage for sequence in plan.sequences} == {0.0}
    assert sum(advantage is None for advantage in plan.advantages.values()) == 1
    added = learner.model_validate({**fields_of("sampled", "path", alone=False)})
    both = plan_step(batch, replace(taught_settings, learner=added))
    assert len(both.sequences) == 11
    assert both.advantages == plan_step(batch, rewarded).advantages
