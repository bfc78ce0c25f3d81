"""Benchmarks of the weight sync: from the learner's weights to engines that serve them, on real processes."""

import asyncio
import time
from pathlib import Path

import numpy as np
import torch

from cluster.commands.inputs import read_inputs
from cluster.configuration.loading import load_config
from cluster.fleet.actors import launch_fleet
from cluster.fleet.placement import plan_bundles, total_resources
from cluster.fleet.ray_session import ray_session
from cluster.record.terminal import make_reporter
from cluster.weights.weight_sync import NUM_CANARY_PROMPTS, WeightSync
from learner.model.policy import LogprobModel, build_policy
from learner.model.source import resolve_model
from learner.transfer.sender import WeightSender
from rollout.transfer.delta import KeptBytes
from rollout.transfer.manifest import WeightReceiver
from tests.benchmarks.pairs import Ratio
from tests.benchmarks.results import Bound, Result

NUM_SYNCS = 5
NUM_DELTAS, DELTA_LR = 5, 1e-6


def over_copy(_: Path) -> list[Result]:
    """`quickstart`'s weights in bf16: digests, canary and all."""
    config = load_config("quickstart", [])
    inputs = read_inputs(config, make_reporter())

    async def measure() -> tuple[Ratio, int]:
        fleet = await launch_fleet(config, model_dir=str(inputs.model_dir))
        try:
            sync = WeightSync(config, fleet, inputs.train.prompts[:NUM_CANARY_PROMPTS])
            num_bytes = (await sync.publish(fleet.samplers)).num_bytes  # the first has more to compare
            source, target = np.ones(num_bytes, np.uint8), np.zeros(num_bytes, np.uint8)
            pairs = []
            for _ in range(NUM_SYNCS):
                copied = _seconds(source, target)
                started = time.perf_counter()
                await sync.publish(fleet.samplers)
                pairs.append((time.perf_counter() - started) / copied)
            return Ratio.of(tuple(pairs)), num_bytes
        finally:
            await fleet.close()

    with ray_session(num_cpus=total_resources(plan_bundles(config)).get("CPU", 1.0)):
        ratio, num_bytes = asyncio.run(measure())
    what = "time until the engine serves new weights over a copy of the same bytes in memory"
    note = f"SmolLM2-135M in bf16, {num_bytes / 1e6:.0f} MB, one engine, digests and canary included"
    return [Result.of("sync.copy", what, ratio, Bound(value=2.0, is_least=False), note)]


def delta_over_dense(_: Path) -> list[Result]:
    """`quickstart`'s model under AdamW at 1e-6: what `weight_sync.delta` sends of each step, exact at the other end."""
    config = load_config("quickstart", [])
    model = build_policy(
        str(resolve_model(config.model.path, announce=print)), dtype="float32", gradient_checkpointing=False
    )
    _leave_the_grid(model)
    sender = WeightSender(model, dtype="bfloat16", chunk_bytes=64 << 20, rank=0, keeps=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=DELTA_LR, betas=(0.9, 0.95), weight_decay=0.0)
    kept = KeptBytes()
    _received(sender, 0, kept)
    generator, pairs = torch.Generator().manual_seed(0), []
    for version in range(1, NUM_DELTAS + 1):
        token_ids = torch.randint(0, 40_000, (2, 64), generator=generator)
        model.policy(input_ids=token_ids, labels=token_ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        whole = _received(sender, version, kept)
        pairs.append(sender.num_bytes_sent / whole)
    what = "bytes of a sync that tells what changed over those of all weights"
    note = f"SmolLM2-135M in bf16, AdamW at {DELTA_LR:g}, after each of {NUM_DELTAS} steps, checked at the other end"
    return [Result.of("sync.delta", what, Ratio.of(tuple(pairs)), Bound(value=0.05, is_least=False), note)]


def _leave_the_grid(model: LogprobModel) -> None:
    """Files in bf16 begin in the middle between two roundings, where no small step is seen. Here weights are anywhere
    between, as after many steps."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            unit = torch.ldexp(
                torch.ones_like(weight), torch.frexp(weight).exponent - 8
            )  # bf16 has 8 bits of a fraction
            weight.add_((torch.rand(weight.shape, generator=generator) - 0.5) * unit)


def _received(sender: WeightSender, version: int, kept: KeptBytes) -> int:
    """A transfer, checked as an engine checks it; bytes of the weights. Errors: `WeightSyncError`."""
    manifest = sender.manifest(version)
    as_delta = manifest.base == kept.digest != ""
    receiver = WeightReceiver(manifest, receiver="benchmark", kept=kept)
    for index in range(len(manifest.chunks)):
        chunk = sender.chunk(index, as_delta=as_delta)
        assert chunk is not None
        receiver.accept(chunk)
    receiver.finish(sender.digest())
    return manifest.num_bytes


def _seconds(source: np.ndarray, target: np.ndarray) -> float:
    """Of a copy, the least of some."""
    least = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        np.copyto(target, source)
        least = min(least, time.perf_counter() - started)
    return least
