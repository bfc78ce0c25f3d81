"""Benchmarks of the controller: what a completion costs it, however many engines there are."""

import asyncio
import multiprocessing
import tempfile
from pathlib import Path

from tests.benchmarks.controller_cost import Cost, measure
from tests.benchmarks.pairs import Ratio
from tests.benchmarks.results import Bound, Result

NUM_PROMPTS, GROUP_SIZE, NUM_TOKENS, LONG = 512, 16, 64, 4096
FEW, MANY = 8, 512
NUM_PAIRS = 3


def engines(_: Path) -> list[Result]:
    """512 engines over 8, at the same prompts."""
    pairs = [(_cost(MANY), _cost(FEW)) for _ in range(NUM_PAIRS)]
    ratio = Ratio.of(tuple(many.completion_s / few.completion_s for many, few in pairs))
    few = Ratio.of(tuple(few.completion_s * 1e3 for _, few in pairs))
    sizes = f"P = {NUM_PROMPTS}, G = {GROUP_SIZE}, {NUM_TOKENS} tokens"
    return [
        Result.of(
            "controller.engines",
            f"controller's processor time a completion with {MANY} engines over that with {FEW}",
            ratio,
            Bound(value=1.2, is_least=False),
            sizes,
        ),
        Result.of(
            "controller.completion",
            f"milliseconds of the controller's processor time a completion, {FEW} engines",
            few,
            Bound(value=0.1, is_least=False),
            sizes,
            is_absolute=True,
        ),
    ]


def hold(_: Path) -> list[Result]:
    """Long completions: what the loop does at once, and what lies in memory."""
    found = [_cost(FEW, num_tokens=LONG) for _ in range(NUM_PAIRS)]
    sizes = f"P = {NUM_PROMPTS}, G = {GROUP_SIZE}, {LONG:,} tokens, {FEW} engines"
    return [
        Result.of(
            "controller.hold",
            "milliseconds for which the controller's event loop does not come back, by the clock",
            Ratio.of(tuple(cost.hold_s * 1e3 for cost in found)),
            Bound(value=50.0, is_least=False),
            sizes,
            is_absolute=True,
        ),
        Result.of(
            "controller.memory",
            "GiB of the controller at its peak, with two steps of tokens, which a run has in Ray's store",
            Ratio.of(tuple(cost.peak_bytes / 2**30 for cost in found)),
            Bound(value=2.0, is_least=False),
            sizes,
            is_absolute=True,
        ),
    ]


def _cost(num_samplers: int, *, num_tokens: int = NUM_TOKENS) -> Cost:
    """In a process of its own, as a run's controller has one."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (num_samplers, num_tokens))


def _measured(num_samplers: int, num_tokens: int) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(Path(folder), [NUM_PROMPTS, GROUP_SIZE, num_tokens, num_samplers]))
