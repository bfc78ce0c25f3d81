"""Benchmarks of the sampler: what stands around the engine."""

import asyncio
from pathlib import Path
from typing import Any

from rollout.config import ModelConfig, RolloutConfig, SamplingConfig
from rollout.types import Prompt, SampleRequest
from rollout.worker import RolloutWorker
from tests.benchmarks import toy
from tests.benchmarks.pairs import compare
from tests.benchmarks.results import Bound, Result

NUM_PROMPTS, GROUP_SIZE, NUM_TOKENS = 8, 8, 64


def over_bare_engine(folder: Path) -> list[Result]:
    """The same requests of the same engine: through the sampler, and straight into vLLM."""
    # vLLM is imported here alone: it sets defaults of the whole process.
    from vllm import SamplingParams
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind

    from rollout.engines.vllm import VLLMEngine

    toy.build(folder / "sampled")
    config = RolloutConfig(dtype="float32", kv_cache_mib=256, prefix_caching=False)
    engine = VLLMEngine(str(folder / "sampled"), ModelConfig(max_context_tokens=256), config, seed=0)
    bare: Any = engine._engine  # the engine without us
    prompts = [_prompt(i) for i in range(NUM_PROMPTS)]
    # As many tokens at every try: nothing ends a completion early.
    sampling = SamplingConfig(max_tokens=NUM_TOKENS, temperature=1.0)
    numbers = iter(range(1_000_000))

    def straight() -> None:
        left = 0
        for prompt in prompts:
            for i in range(GROUP_SIZE):
                params = SamplingParams(
                    temperature=1.0,
                    max_tokens=NUM_TOKENS,
                    seed=i,
                    logprobs=0,
                    flat_logprobs=True,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                )
                bare.add_request(f"bare-{next(numbers)}", tokens_input(list(prompt.token_ids)), params)
                left += 1
        while left:
            left -= sum(output.finished for output in bare.step())

    async def through() -> None:
        attempt = next(numbers) + 1
        requests = [SampleRequest(prompt=prompt, group_size=GROUP_SIZE, attempt=attempt) for prompt in prompts]
        await worker.submit(requests, sampling)
        await asyncio.gather(*(worker.wait_group(request.key) for request in requests))

    worker = RolloutWorker(lambda: engine, name="sampler-0", run_seed=0)
    with asyncio.Runner() as runner:
        runner.run(worker.ready())
        runner.run(worker.serve(0))
        ratio = compare(straight, lambda: runner.run(through()))
        runner.run(worker.close())
    what = "sampled tokens a second through the sampler over the bare engine with the same requests"
    return [Result.of("sampler.overhead", what, ratio, Bound(value=0.97, is_least=True))]


def _prompt(index: int) -> Prompt:
    return Prompt(
        uid=f"{index:016x}",
        epoch=0,
        index=index,
        token_ids=tuple(range(2, 34)),
        text="",
        question="",
        ground_truth=None,
        task="toy",
    )
