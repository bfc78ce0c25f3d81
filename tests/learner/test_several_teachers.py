"""Two teachers on two ranks of real DeepSpeed, against the same losses written down in plain PyTorch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from learner.backend.engine import RendezvousAddress
from learner.types import TrainBatch
from tests.learner.ranks import run_ranks
from tests.learner.samples import groups_of, save_toy_model, scored_of, train_batch, train_step
from tests.learner.test_worker import make_worker

pytestmark = pytest.mark.integration

TEMPERATURE = 0.9  # of `make_worker`
KINDS = ("sampled", "reverse")
TEACHER_OF = ("b", "a", "b")
"""Of each group."""


def batch_of(step: int) -> TrainBatch:
    batch = train_batch(step)
    groups = []
    for scored, name in zip(batch.groups, TEACHER_OF, strict=True):
        group = scored.group.payload
        groups.append(scored_of(replace(group, prompt=replace(group.prompt, teacher=name)), scored.rewards))
    return replace(batch, groups=tuple(groups))


def run_kinds(
    rank: int, world_size: int, addresses: list[RendezvousAddress], student: str, teachers: dict[str, str]
) -> list[dict[str, float]]:
    found = []
    for address, kind in zip(addresses, KINDS, strict=True):
        worker = make_worker(
            rank,
            world_size,
            address,
            student,
            teacher_dirs=teachers,
            zero_stage=3,
            micro_batch_tokens=48,
            max_grad_norm=0.0,
            teacher={"kind": kind, "coef": 0.7, "paths": teachers, "column": "subject"},
            objective={"kl": {"coef": 0.0}, "surrogate": {"kind": "policy_gradient"}},
        )
        found.append(dict(train_step(worker, batch_of(0))[0].metrics))
        worker.close()
    return found


def by_hand(student_dir: str, teachers: dict[str, str], kind: str) -> tuple[float, float, float]:
    """(loss, norm of its gradient, mean divergence) of the first step."""
    import torch
    from transformers import AutoModelForCausalLM

    student = AutoModelForCausalLM.from_pretrained(student_dir).eval()
    models = {name: AutoModelForCausalLM.from_pretrained(folder).eval() for name, folder in teachers.items()}
    batch = batch_of(0)
    losses, divergences = [], []
    trained = [
        (group, completion)
        for scored, group in zip(batch.groups, groups_of(batch).values(), strict=True)
        for completion, result in zip(group.completions, scored.rewards, strict=True)
        if result.reward is not None and completion.loss_mask.any()
    ]
    for group, completion in trained:
        prompt, ids = list(group.prompt.token_ids), completion.token_ids.tolist()
        places = slice(len(prompt) - 1, len(prompt) - 1 + len(ids))

        def logprobs(model: Any, tokens: list[int] = prompt + ids, places: slice = places) -> Any:
            return (model(input_ids=torch.tensor([tokens])).logits[0, places] / TEMPERATURE).log_softmax(-1)

        p = logprobs(student)
        with torch.no_grad():
            q = logprobs(models[group.prompt.teacher])
        at = torch.arange(len(ids)), torch.tensor(ids)
        divergence = (p[at] - q[at]).detach() if kind == "sampled" else (p.exp() * (p - q)).sum(-1)
        ratio = (p[at] - torch.tensor(completion.logprobs)).exp()
        mask = torch.tensor(completion.loss_mask)
        token_loss = 0.7 * divergence * (ratio if kind == "sampled" else 1.0)
        losses.append(token_loss[mask].sum() / mask.sum() / len(trained))
        divergences += divergence[mask].tolist()
    loss = torch.stack(losses).sum()
    loss.backward()
    norm = torch.stack([w.grad.square().sum() for w in student.parameters()]).sum().sqrt()
    return loss.item(), norm.item(), sum(divergences) / len(divergences)


def test_every_group_is_taught_by_its_own(tmp_path: Path) -> None:
    student = save_toy_model(tmp_path / "student")
    teachers = {name: save_toy_model(tmp_path / name, tied=False, seed=seed) for name, seed in (("a", 1), ("b", 2))}
    ranks = run_ranks(run_kinds, 2, len(KINDS), student, teachers, deadline_s=900.0)
    swapped = {"a": teachers["b"], "b": teachers["a"]}
    for kind, metrics in zip(KINDS, ranks[0], strict=True):
        loss, norm, divergence = by_hand(student, teachers, kind)
        assert metrics["train/loss"] == pytest.approx(loss, rel=1e-4, abs=1e-6)
        assert metrics["train/grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert metrics["train/teacher_kl"] == pytest.approx(divergence, rel=1e-4)
        assert abs(by_hand(student, swapped, kind)[2] - divergence) > 1e-3, "the other's are other numbers"
    assert [of["train/loss"] for of in ranks[0]] == [of["train/loss"] for of in ranks[1]]
