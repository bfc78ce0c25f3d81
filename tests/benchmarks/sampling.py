"""Benchmarks of the sampler: what stands around the engine."""

import asyncio
from pathlib import Path
from typing import Any

from rollout.config import ModelConfig, RolloutConfig, SamplingConfig
from rollout.prompts.stream import sample_seed
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
    toy.save_tokenizer(folder / "sampled")
    config = RolloutConfig(dtype="float32", kv_cache_mib=256, prefix_caching=False)
    model = ModelConfig(path=str(folder / "sampled"), max_context_tokens=256)
    prompts = [_prompt(i) for i in range(NUM_PROMPTS)]
    sampling = SamplingConfig(max_tokens=NUM_TOKENS, temperature=1.0)
    numbers = iter(range(1_000_000))
    worker = RolloutWorker(
        lambda: VLLMEngine(model.path, model, config, seed=0), name="sampler-0", run_seed=0, has_seeds=True
    )

    def straight() -> int:
        """On the worker's thread, which is the engine's. The seeds, and so the tokens, are those of `through`."""
        ours: Any = worker._engine
        bare = ours._engine  # the engine without us
        left, found = NUM_PROMPTS * GROUP_SIZE, 0
        for prompt in prompts:
            for i in range(GROUP_SIZE):
                params = SamplingParams(
                    temperature=1.0,
                    max_tokens=NUM_TOKENS,
                    seed=sample_seed(0, "train", prompt.epoch, prompt.uid, i),
                    logprobs=0,
                    flat_logprobs=True,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                )
                bare.add_request(f"bare-{next(numbers)}", tokens_input(list(prompt.token_ids)), params)
        while left:
            ended = [output for output in bare.step() if output.finished]
            left -= len(ended)
            found += sum(len(output.outputs[0].token_ids) for output in ended)
        return found

    async def through() -> int:
        attempt = next(numbers) + 1
        requests = [SampleRequest(prompt=prompt, group_size=GROUP_SIZE, attempt=attempt) for prompt in prompts]
        await worker.submit(requests, sampling)
        groups = await asyncio.gather(*(worker.wait_group(request.key) for request in requests))
        return sum(completion.num_tokens for _, group in groups for completion in group.completions)

    with asyncio.Runner() as runner:
        runner.run(worker.ready())
        runner.run(worker.serve(0))
        on_its_thread = worker._on_engine_thread
        assert runner.run(through()) == runner.run(on_its_thread(straight)), "the same tokens"
        ratio = compare(lambda: runner.run(on_its_thread(straight)), lambda: runner.run(through()))
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
