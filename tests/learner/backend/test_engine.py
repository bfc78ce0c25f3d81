"""Numbers that are not finite, at the one place where they could reach the weights: without ranks, on a real optimizer.

`test_recovery.py` has the same on two ranks and every ZeRO stage.
"""

import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from learner.backend.engine import TrainingEngine
from learner.config import LearnerConfig

LR = 0.1


class OneRank:
    """What `TrainingEngine` uses of a DeepSpeed engine, for one rank without ZeRO."""

    def __init__(self, module: nn.Module, parameters: list[nn.Parameter]) -> None:
        self.device = "cpu"
        self.basic_optimizer = self.optimizer = torch.optim.AdamW(parameters, lr=1.0, weight_decay=0.0)
        self.num_steps = 0

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step(self) -> None:
        self.num_steps += 1
        self.optimizer.step()
        self.optimizer.zero_grad()


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> nn.Linear:
    """Weights (3, 4)."""

    def initialize(*, model: nn.Module, model_parameters: list[nn.Parameter], config: Any) -> tuple[OneRank]:
        return (OneRank(model, model_parameters),)

    monkeypatch.setitem(sys.modules, "deepspeed", SimpleNamespace(initialize=initialize))
    made = nn.Linear(2, 1, bias=False)
    made.weight.data = torch.tensor([[3.0, 4.0]])
    return made


def engine_of(module: nn.Module, **fields: Any) -> TrainingEngine:
    return TrainingEngine(module, LearnerConfig(zero_stage=0, **fields), world_size=1)


def everything(engine: TrainingEngine, module: nn.Linear) -> list[list[float]]:
    """The weights, then the optimizer's moments and counts."""
    state = engine.deepspeed.optimizer.state[module.weight]
    return [tensor.flatten().tolist() for tensor in (module.weight.data, *state.values())]


def gradient_is(engine: TrainingEngine, module: nn.Linear, *gradient: float) -> None:
    """A backward pass whose loss is the sum of weight times `gradient`."""
    engine.backward((module.weight * torch.tensor([gradient])).sum())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_changes_neither_weights_nor_moments(module: nn.Linear, bad: float) -> None:
    engine = engine_of(module)
    gradient_is(engine, module, 1.0, 2.0)
    assert engine.step(LR).applied
    before = everything(engine, module)
    assert before[0] == pytest.approx([3.0 - LR, 4.0 - LR])  # AdamW's first step is lr in every direction
    # The loss is finite, as with a gradient that overflows on its way back.
    module.weight.register_hook(lambda gradient: gradient * torch.tensor([[1.0, bad]]))
    gradient_is(engine, module, 1.0, 2.0)
    result = engine.step(LR)
    assert not result.applied
    assert not math.isfinite(result.grad_norm)
    assert everything(engine, module) == before


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_not_applied_although_its_gradient_is(module: nn.Linear, bad: float) -> None:
    engine = engine_of(module)
    engine.backward((module.weight * torch.tensor([[1.0, 2.0]])).sum() + bad)
    gradient_is(engine, module, 1.0, 2.0)  # a second micro-batch, in order
    assert not engine.step(LR).applied
    assert module.weight.data.tolist() == [[3.0, 4.0]]
    # What was bad is gone: the next step is as if it had never come.
    gradient_is(engine, module, 1.0, 2.0)
    assert engine.step(LR).applied
    assert module.weight.data.flatten().tolist() == pytest.approx([3.0 - LR, 4.0 - LR])


@pytest.mark.parametrize(("max_norm", "clipped"), [(0.0, 5.0), (10.0, 5.0), (1.0, 1.0)])
def test_the_whole_gradient_is_clipped_and_its_norm_is_told_as_it_was(
    module: nn.Linear, max_norm: float, clipped: float
) -> None:
    engine = engine_of(module, max_grad_norm=max_norm)
    gradient_is(engine, module, 3.0, -4.0)
    assert engine.step(LR).grad_norm == pytest.approx(5.0)
    # AdamW's first moment after one step is a tenth of the gradient that it was given.
    moment = engine.deepspeed.optimizer.state[module.weight]["exp_avg"]
    assert torch.linalg.vector_norm(moment).item() == pytest.approx(0.1 * clipped, rel=1e-4)
