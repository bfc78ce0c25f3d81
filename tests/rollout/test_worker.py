import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from math import inf, log, nan

import numpy as np
import pytest
from pydantic import BaseModel, field_validator

from rollout.config import SamplingConfig
from rollout.errors import EngineError, WeightSyncError
from rollout.transfer.delta import difference
from rollout.transfer.manifest import TensorSpec, WeightChunk, WeightManifest, tensor_digest, weights_digest
from rollout.types import Prompt, SampleRequest, facts_of
from rollout.worker import RolloutWorker
from tests.rollout.fake_engine import FakeEngine

SPEC = TensorSpec(name="w", dtype="float32", shape=(2,))
DATA = np.arange(8, dtype=np.uint8)
CHUNK = WeightChunk(policy_version=1, index=0, digests=(tensor_digest(DATA),), data=DATA)
MANIFEST = WeightManifest(policy_version=1, chunks=((SPEC,),))
DIGEST = weights_digest([(SPEC, CHUNK.digests[0])])
SAMPLING = SamplingConfig(max_tokens=2)


def request(index: int, *, attempt: int = 1, purpose: str = "train", group_size: int = 2) -> SampleRequest:
    prompt = Prompt(
        uid=f"{index:016x}",
        epoch=0,
        index=index,
        token_ids=(1, 2),
        text="q",
        question="q",
        ground_truth="3",
        task="t",
    )
    return SampleRequest(prompt=prompt, attempt=attempt, group_size=group_size, purpose=purpose)


@asynccontextmanager
async def working(engine: FakeEngine, *, serve: bool = True) -> AsyncIterator[RolloutWorker]:
    worker = RolloutWorker(lambda: engine, name="sampler-0", run_seed=5)
    try:
        async with asyncio.timeout(5):
            await worker.ready()
            if serve:
                await worker.serve(0)
            yield worker
    finally:
        await worker.close()


async def update(worker: RolloutWorker, *, serving_continues: bool = False) -> str:
    await worker.begin_update(MANIFEST, serving_continues=serving_continues)
    await worker.load_chunk(CHUNK)
    return await worker.finish_update(DIGEST)


def test_a_worker_keeps_what_came_and_takes_what_changed() -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with working(engine) as worker:
            keeps = dataclasses.replace(MANIFEST, keeps=True)
            assert await worker.begin_update(keeps) == ""
            await worker.load_chunk(CHUNK)
            assert await worker.finish_update(DIGEST) == DIGEST
            new = DATA.copy()
            new[1] = 9
            delta = difference(DATA, new, word_bytes=2)
            chunk = WeightChunk(policy_version=1, index=0, digests=(tensor_digest(new),), data=new[:0], delta=delta)
            digest = weights_digest([(SPEC, chunk.digests[0])])
            assert await worker.begin_update(keeps) == DIGEST  # and the transfer breaks off
            await worker.load_chunk(chunk)
            assert await worker.begin_update(keeps) == ""
            await worker.load_chunk(CHUNK)
            await worker.finish_update(DIGEST)
            assert await worker.begin_update(keeps) == DIGEST
            await worker.load_chunk(chunk)
            assert engine.loaded == {"w": new.tobytes()}
            assert await worker.finish_update(digest) == digest
            await worker.begin_update(keeps)
            with pytest.raises(EngineError, match="arrived altered"):  # it changed from other weights than these
                await worker.load_chunk(chunk)
            assert await worker.begin_update(MANIFEST) == ""

    asyncio.run(main())


async def sample(worker: RolloutWorker, requests: Sequence[SampleRequest]) -> None:
    await worker.submit(requests, SAMPLING)
    for wanted in requests:
        await worker.wait_group(wanted.key)


def test_a_worker_is_stale_until_it_is_told_to_serve() -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with working(engine, serve=False) as worker:
            assert (await worker.status()).policy_version is None
            with pytest.raises(EngineError, match="sampler-0: asked to sample with weights that were not verified"):
                await worker.submit([request(0)], SAMPLING)
            assert engine.journal == []
            await worker.serve(0)
            assert (await worker.status()).policy_version == 0
            await sample(worker, [request(0)])
            assert (await worker.status()).num_tokens == 4
        assert engine.journal == ["add 2", "step 2", "close"]

    asyncio.run(main())


def test_a_batch_is_added_together_before_the_next_step() -> None:
    async def main() -> None:
        engine = FakeEngine(steps=2)
        async with working(engine) as worker:
            await sample(worker, [request(i) for i in range(3)])
            assert engine.journal == ["add 6", "step 6", "step 6"]

    asyncio.run(main())


def test_a_group_has_its_completions_in_order_and_is_handed_out_once() -> None:
    async def main() -> None:
        async with working(FakeEngine()) as worker:
            wanted = request(4, group_size=3)
            await worker.submit([wanted], SAMPLING)
            first, second = await asyncio.gather(
                worker.wait_group(wanted.key), worker.wait_group(wanted.key), return_exceptions=True
            )
            assert not isinstance(first, BaseException)
            facts, group = first
            assert facts == facts_of(group)
            assert [c.sample_index for c in group.completions] == [0, 1, 2]
            assert (group.attempt, group.worker, facts.min_policy_version) == (1, "sampler-0", 0)
            assert (facts.num_tokens_G, facts.num_trainable_tokens_G) == ((2, 2, 2), (2, 2, 2))
            assert facts.surprisal_sum == 3 * 0.75
            assert isinstance(second, EngineError)
            with pytest.raises(EngineError, match="handed out already"):
                await worker.wait_group(wanted.key)
            assert (await worker.status()).num_running_groups == 0

    asyncio.run(main())


def test_without_seeds_only_evaluations_have_them() -> None:
    """A14: on GPUs a seed for each completion costs vLLM its fastest sampler."""

    async def main() -> None:
        engine = FakeEngine()
        worker = RolloutWorker(lambda: engine, name="sampler-0", run_seed=5, has_seeds=False)
        await worker.ready()
        await worker.serve(0)
        await sample(worker, [request(0)])
        await sample(worker, [request(0, purpose="eval")])
        await worker.close()
        assert [spec.seed is None for spec in engine.specs] == [True, True, False, False]

    asyncio.run(main())


def test_seeds_differ_per_sample_and_purpose_and_are_equal_on_a_retry() -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with working(engine) as worker:
            await sample(worker, [request(0, group_size=4)])
            await sample(worker, [request(0, group_size=4, attempt=2)])
            await sample(worker, [request(0, group_size=4, purpose="eval")])
            await sample(worker, [request(1, group_size=4)])
            seeds = [spec.seed for spec in engine.specs]
            assert seeds[:4] == seeds[4:8]
            assert len(set(seeds)) == 12
            assert len({spec.request_id for spec in engine.specs}) == 16

    asyncio.run(main())


def test_an_evaluations_question_is_leased_anew_in_the_next_one_with_the_same_seeds() -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with working(engine) as worker:
            leases = [dataclasses.replace(request(0, purpose="eval"), evaluation=number) for number in (1, 2)]
            assert [lease.key[0] for lease in leases] == ["eval-1", "eval-2"]
            await worker.submit(leases[:1], SAMPLING)  # and nobody asks for it: that evaluation was given up
            await worker.submit(leases[1:], SAMPLING)
            assert len((await worker.wait_group(leases[1].key))[1].completions) == 2
            assert (await worker.status()).num_running_groups == 1
            seeds = [spec.seed for spec in engine.specs]
            assert seeds[:2] == seeds[2:]
            assert len({spec.request_id for spec in engine.specs}) == 4

    asyncio.run(main())


def test_tokens_whose_log_probability_is_not_finite_are_masked_and_counted() -> None:
    async def main() -> None:
        async with working(FakeEngine(logprobs=(nan, -inf))) as worker:
            await worker.submit([request(0)], SAMPLING)
            facts, group = await worker.wait_group(request(0).key)
            both = group.completions[0]
            assert (both.logprobs.tolist(), both.loss_mask.tolist()) == ([0.0, 0.0], [False, False])
            assert (both.num_nonfinite_logprobs, facts.num_nonfinite_logprobs) == (2, 4)
            assert facts.num_trainable_tokens_G == (0, 0)
        async with working(FakeEngine(logprobs=(-0.5, inf))) as worker:
            await worker.submit([request(0)], SAMPLING)
            facts, group = await worker.wait_group(request(0).key)
            one = group.completions[1]
            assert (one.logprobs.tolist(), one.loss_mask.tolist()) == ([-0.5, 0.0], [True, False])
            assert (one.num_nonfinite_logprobs, facts.surprisal_sum) == (1, 1.0)

    asyncio.run(main())


def test_an_update_loads_the_bytes_and_serves_only_when_told() -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with working(engine) as worker:
            assert await update(worker) == DIGEST
            assert (await worker.status()).policy_version is None
            with pytest.raises(EngineError, match="not verified"):
                await worker.submit([request(0)], SAMPLING)
            with pytest.raises(WeightSyncError, match="told to serve version 0, but version 1 is loaded"):
                await worker.serve(0)
            (logprobs,) = await worker.prompt_logprobs([[4, 5]])
            assert logprobs == pytest.approx([-log(2)])
            await worker.serve(1)
            await sample(worker, [request(0)])
            assert engine.loaded == {"w": bytes(range(8))}
            assert engine.journal == ["start", "load w", "finish 1", "probe", "add 2", "step 2"]

    asyncio.run(main())


def test_an_altered_chunk_is_not_loaded_and_leaves_the_worker_stale() -> None:
    async def main() -> None:
        engine = FakeEngine()
        altered = WeightChunk(policy_version=1, index=0, digests=CHUNK.digests, data=DATA + np.uint8(1))
        async with working(engine) as worker:
            for outside in (worker.load_chunk(CHUNK), worker.finish_update(DIGEST)):
                with pytest.raises(WeightSyncError, match="outside a transfer"):
                    await outside
            await worker.begin_update(MANIFEST)
            with pytest.raises(WeightSyncError, match=r"tensor w .* arrived altered"):
                await worker.load_chunk(altered)
            with pytest.raises(WeightSyncError, match="incomplete"):
                await worker.finish_update(DIGEST)
            with pytest.raises(WeightSyncError, match="told to serve version 1, but version 0"):
                await worker.serve(1)
            assert engine.loaded == {}
            assert await update(worker) == DIGEST

    asyncio.run(main())


def test_an_update_gives_up_what_still_runs() -> None:
    async def main() -> None:
        engine = FakeEngine(steps=10**9)
        async with working(engine) as worker:
            await worker.submit([request(0)], SAMPLING)
            waiting = asyncio.ensure_future(worker.wait_group(request(0).key))
            await asyncio.sleep(0)
            await update(worker)
            with pytest.raises(EngineError, match="its lease was given up, and then weights of another version came"):
                await waiting
            assert "abort 2" in engine.journal
            assert not engine.has_unfinished()

    asyncio.run(main())


def test_a_probe_is_a_token_and_never_meets_what_is_sampled() -> None:
    async def main() -> None:
        engine = FakeEngine()
        async with working(engine) as worker:
            before = len(engine.specs)
            await worker.probe()
            assert [spec.sampling.max_tokens for spec in engine.specs[before:]] == [1]
            assert not engine.has_unfinished()
        engine = FakeEngine(steps=10**9)
        async with working(engine) as worker:
            await worker.submit([request(0)], SAMPLING)
            await worker.probe()
            assert len(engine.specs) == 2, "the engine is at work: that is proof enough"

    asyncio.run(main())


def test_groups_run_on_across_an_update_when_serving_continues() -> None:
    async def main() -> None:
        engine = FakeEngine(steps=10**9)
        async with working(engine) as worker:
            await worker.submit([request(0)], SAMPLING)
            await update(worker, serving_continues=True)
            before = engine.journal.count("step 2")
            await worker.prompt_logprobs([[4, 5]])
            await asyncio.sleep(0.05)
            assert engine.journal.count("step 2") == before, "sampled from weights that were not verified"
            await worker.serve(1)
            await asyncio.sleep(0.05)
            assert engine.journal.count("step 2") > before

    asyncio.run(main())


def test_an_engine_failure_reaches_every_lease_and_every_later_call() -> None:
    async def main() -> None:
        async with working(FakeEngine(fail_at_step=2, steps=5)) as worker:
            await worker.submit([request(0), request(1)], SAMPLING)
            message = "sampler-0: the engine failed while sampling: MemoryError: no block is free"
            for index in range(2):
                with pytest.raises(EngineError, match=message):
                    await worker.wait_group(request(index).key)
            later = (worker.submit([request(2)], SAMPLING), worker.serve(0), worker.begin_update(MANIFEST))
            for call in later:
                with pytest.raises(EngineError, match=message):
                    await call
            with pytest.raises(EngineError, match=message):
                await worker.wait_group(request(2).key)

    asyncio.run(main())


def test_what_a_library_says_in_many_lines_is_said_in_one() -> None:
    class Settings(BaseModel):
        length: int

        @field_validator("length")
        @classmethod
        def check(cls, length: int) -> int:
            raise ValueError(f"length {length} is\nmore than the model has")

    async def main() -> None:
        worker = RolloutWorker(lambda: Settings(length=7), name="sampler-0", run_seed=0)  # type: ignore[arg-type,return-value]
        with pytest.raises(EngineError) as error:
            await worker.ready()
        assert str(error.value) == (
            "sampler-0: the engine could not start: ValidationError: Value error, length 7 is more than the model has"
        )

    asyncio.run(main())


def test_an_engine_that_cannot_start_is_said_by_every_call() -> None:
    def build() -> FakeEngine:
        raise OSError("no such model")

    async def main() -> None:
        worker = RolloutWorker(build, name="sampler-0", run_seed=0)
        message = "sampler-0: the engine could not start: OSError: no such model"
        async with asyncio.timeout(5):
            with pytest.raises(EngineError, match=message):
                await worker.ready()
            with pytest.raises(EngineError, match=message):
                await worker.serve(0)

    asyncio.run(main())


def test_a_caller_that_gives_up_does_not_harm_the_engine() -> None:
    async def main() -> None:
        engine = FakeEngine()
        engine.is_held = True
        async with working(engine) as worker:
            await worker.submit([request(0)], SAMPLING)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(worker.wait_group(request(0).key), 0.01)
            engine.is_held = False
            assert (await worker.wait_group(request(0).key))[0].num_tokens == 4

    asyncio.run(main())


def test_closing_ends_what_still_waits() -> None:
    async def main() -> None:
        async with working(FakeEngine(steps=10**9)) as worker:
            await worker.submit([request(0)], SAMPLING)
            waiting = asyncio.ensure_future(worker.wait_group(request(0).key))
            await asyncio.sleep(0)
            await worker.close()
            with pytest.raises(EngineError, match="closed"):
                await waiting
            with pytest.raises(EngineError, match="closed"):
                await worker.serve(0)

    asyncio.run(main())
