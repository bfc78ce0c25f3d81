"""Benchmarks of the weight sync: from the learner's weights to engines that serve them, on real processes."""

import asyncio
import time
from pathlib import Path

import numpy as np

from cluster.commands.inputs import read_inputs
from cluster.configuration.loading import load_config
from cluster.fleet.actors import launch_fleet
from cluster.fleet.placement import plan_bundles, total_resources
from cluster.fleet.ray_session import ray_session
from cluster.record.terminal import make_reporter
from cluster.weights.weight_sync import NUM_CANARY_PROMPTS, WeightSync
from tests.benchmarks.pairs import Ratio
from tests.benchmarks.results import Bound, Result

NUM_SYNCS = 5


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


def _seconds(source: np.ndarray, target: np.ndarray) -> float:
    """Of a copy, the least of some."""
    least = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        np.copyto(target, source)
        least = min(least, time.perf_counter() - started)
    return least
