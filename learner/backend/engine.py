"""The DeepSpeed engine: process group, backward passes, and a step that a bad number cannot get through.

One rule for all ZeRO stages: a step is applied only if the norm of the whole gradient is finite.

- A loss that is not finite makes its own gradient NaN (`backward`), so there is one thing to look at.
- Gradients are summed over ranks, so NaN on one rank is NaN in the norm on all of them: all skip, or none.
- Stages 1 to 3: DeepSpeed computes the norm, skips and clears its buffers itself. Stage 0 has no such check, so a hook
  of the optimizer does the same there, clipping included: without gradients, AdamW touches neither weights nor moments.
"""

import math
import os
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]  # PyTorch names nothing public

from learner.backend.deepspeed_config import deepspeed_config
from learner.config import LearnerConfig
from rollout.errors import LearnerError
from rollout.module_loading import loading_modules


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlace:
    """Which rank this process is, and where the ranks meet."""

    rank: int
    world_size: int
    local_rank: int
    """Which of the node's visible accelerators this rank uses."""
    on_gpu: bool
    """Whether it was given one. A machine with GPUs also runs ranks that were asked for on its CPUs."""
    rendezvous: "RendezvousAddress"


@dataclass(frozen=True, slots=True, kw_only=True)
class RendezvousAddress:
    """Where the ranks meet."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Rendezvous:
    """The store in which the ranks of one process group find each other; it must live as long as they do.

    It is bound here, to a port that the system picks, and handed to the ranks: a port that is looked for first and
    bound later, by rank 0, may be taken by then. It listens on `host` alone, where PyTorch would on every address.
    """

    def __init__(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family)
        listener.bind((host, 0))
        port = listener.getsockname()[1]
        self.address = RendezvousAddress(host=host, port=port)
        self._store = TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach())


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one optimizer step did."""

    applied: bool
    grad_norm: float
    """Norm of the whole gradient before clipping; not finite when the step was not applied."""


def join_ranks(place: RankPlace, *, timeout_s: float) -> None:
    """Joins the ranks' process group: gloo on CPUs, nccl on GPUs. A collective that takes `timeout_s` raises.

    Errors: `LearnerError` when the other ranks did not come in that time.
    """
    os.environ["DS_ACCELERATOR"] = "cuda" if place.on_gpu else "cpu"
    # DeepSpeed wants all five, or it looks for MPI.
    os.environ["RANK"], os.environ["WORLD_SIZE"] = str(place.rank), str(place.world_size)
    os.environ["LOCAL_RANK"] = str(place.local_rank)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = place.rendezvous.host, str(place.rendezvous.port)
    with loading_modules():
        import deepspeed

    if place.on_gpu:
        torch.cuda.set_device(place.local_rank)
    else:
        # An extension that only inference uses; it would be compiled here, for a minute, before anything else.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend, timeout = "nccl" if place.on_gpu else "gloo", timedelta(seconds=timeout_s)
    try:
        store = TCPStore(place.rendezvous.host, place.rendezvous.port, is_master=False, timeout=timeout)
        torch.distributed.init_process_group(
            backend, store=store, rank=place.rank, world_size=place.world_size, timeout=timeout
        )
    except torch.distributed.DistError as error:
        raise LearnerError(
            f"learner rank {place.rank} did not meet the other ranks ({place.world_size} in all) at "
            f"{place.rendezvous} within {timeout_s:g} s: {error}; see their logs"
        ) from error
    deepspeed.init_distributed(dist_backend=backend, timeout=timeout)  # takes the group that there is


def leave_ranks() -> None:
    """Leaves the process group."""
    import deepspeed.comm

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()


class TrainingEngine:
    """A module under DeepSpeed: any number of `backward` calls, then one `step`."""

    def __init__(self, module: nn.Module, config: LearnerConfig, *, world_size: int) -> None:
        import deepspeed

        initialize: Any = deepspeed.initialize  # its annotations are narrower than what it takes and gives
        self.deepspeed, *_ = initialize(
            model=module,
            model_parameters=[parameter for parameter in module.parameters() if parameter.requires_grad],
            config=deepspeed_config(config, world_size=world_size),
        )
        self.device = torch.device(self.deepspeed.device)
        self.zero_stage = config.zero_stage
        self._world_size = world_size
        self._guard = _StageZeroGuard(config.max_grad_norm) if config.zero_stage == 0 else None
        if self._guard is not None:
            self.deepspeed.basic_optimizer.register_step_pre_hook(self._guard)

    def __call__(self, *args: Any) -> Any:
        """The forward pass of the model, through DeepSpeed's hooks."""
        return self.deepspeed(*args)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradient of this rank's share of the loss.

        DeepSpeed averages over ranks; the shares are to be summed, hence the factor.
        """
        # Multiplying by NaN makes every gradient NaN. The test is a tensor, so that a GPU is not waited for.
        poison = torch.where(torch.isfinite(loss.detach()), 1.0, math.nan)
        self.deepspeed.backward(loss * poison * self._world_size)

    def step(self, lr: float, *, denominator: int = 1) -> StepResult:
        """One optimizer step with the gradients added up so far, over `denominator`; they are gone afterwards in any
        case."""
        optimizer = self.deepspeed.optimizer
        for group in optimizer.param_groups:
            group["lr"] = lr
        if self._guard is not None:
            self._guard.denominator = denominator
            self.deepspeed.step()
            return StepResult(applied=math.isfinite(self._guard.grad_norm), grad_norm=self._guard.grad_norm)
        # What ZeRO divides gradients by before it clips them. Backward passes would multiply by it: 1 for them.
        optimizer.loss_scale = float(denominator)
        try:
            self.deepspeed.step()
        finally:
            optimizer.loss_scale = 1.0
        return StepResult(
            applied=self.deepspeed.was_step_applied(), grad_norm=float(self.deepspeed.get_global_grad_norm())
        )


class _StageZeroGuard:
    """Runs in the optimizer's step, after gradients were averaged over ranks and before they are used."""

    def __init__(self, max_grad_norm: float) -> None:
        self._max_grad_norm = max_grad_norm
        self.denominator = 1
        self.grad_norm = 0.0

    def __call__(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(p.grad) for p in parameters])
        self.grad_norm = float(torch.linalg.vector_norm(norms)) / self.denominator
        if not math.isfinite(self.grad_norm):
            for parameter in parameters:
                parameter.grad = None
        elif self._max_grad_norm > 0 or self.denominator != 1:
            # As ZeRO does: 1e-6 on the norm, and nothing is scaled up.
            clip = max((self.grad_norm + 1e-6) / self._max_grad_norm, 1.0) if self._max_grad_norm > 0 else 1.0
            for parameter in parameters:
                assert parameter.grad is not None
                parameter.grad.mul_(1.0 / (clip * self.denominator))
