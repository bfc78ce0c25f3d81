"""An engine and a learner rank, each in a process of its own that outlives many models: libraries are loaded once."""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from rollout.transfer.manifest import WeightChunk, WeightManifest

CALL_DEADLINE_S = 300.0


class HostError(Exception):
    """What a call raised over there: the type's name, its text, its trace."""


class Host:
    """A process that has one object, and calls its methods for us."""

    def __init__(self, make: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(make, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, method: str, *args: Any) -> Any:
        self._pipe.send((method, args))
        if not self._pipe.poll(CALL_DEADLINE_S):
            raise HostError("TimeoutError", f"{method} had no answer within {CALL_DEADLINE_S:g} s", "")
        error, answer = self._pipe.recv()
        if error is not None:
            raise HostError(*error)
        return answer

    def close(self) -> None:
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()


def _serve(make: Callable[[], Any], pipe: Connection) -> None:
    host = make()
    with suppress(EOFError):
        while True:
            method, args = pipe.recv()
            try:
                pipe.send((None, getattr(host, method)(*args)))
            except BaseException as error:  # noqa: BLE001  # process boundary: who called gets it
                pipe.send(((type(error).__name__, str(error), traceback.format_exc()), None))


class EngineHost:
    """One vLLM engine after another."""

    def __init__(self) -> None:
        os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
        self._engine: Any = None

    def start(self, model_dir: str, dtype: str) -> None:
        import gc

        from rollout.config import ModelConfig, RolloutConfig
        from rollout.engines.vllm import VLLMEngine

        if self._engine is not None:
            self._engine.close()
            self._engine = None
            gc.collect()
        rollout = RolloutConfig(dtype=dtype, kv_cache_mib=16, threads=1, max_num_seqs=16)
        self._engine = VLLMEngine(model_dir, ModelConfig(path=model_dir, max_context_tokens=128), rollout, seed=0)

    def load(self, manifest: WeightManifest, chunks: Sequence[WeightChunk], digest: str) -> str:
        from rollout.transfer.manifest import WeightReceiver

        receiver = WeightReceiver(manifest, receiver="test")
        self._engine.start_weight_update()
        for chunk in chunks:
            self._engine.load_tensors(list(receiver.accept(chunk)))
        received = receiver.finish(digest)
        self._engine.finish_weight_update(manifest.policy_version)
        return received

    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        found: list[np.ndarray] = self._engine.prompt_logprobs(sequences)
        return found

    def sample(self, prompts: Sequence[Sequence[int]], num_samples: int, max_tokens: int) -> list[Any]:
        from rollout.config import SamplingConfig
        from rollout.engines.protocol import SampleSpec

        sampling = SamplingConfig(max_tokens=max_tokens)
        self._engine.add(
            [
                SampleSpec(request_id=f"{p}|{i}", token_ids=tuple(prompt), sampling=sampling, seed=100 * p + i)
                for p, prompt in enumerate(prompts)
                for i in range(num_samples)
            ]
        )
        outputs: dict[str, Any] = {}
        while self._engine.has_unfinished():
            outputs |= {output.request_id: output for output in self._engine.step()}
        return [outputs[f"{p}|{i}"] for p in range(len(prompts)) for i in range(num_samples)]


class LearnerHost:
    """One learner rank after another, alone among its ranks."""

    def __init__(self) -> None:
        self._worker: Any = None
        self._meeting: Any = None

    def start(self, model_dir: str, dtype: str, engine_dtype: str, lr: float) -> None:
        from learner.backend.engine import RankPlace, Rendezvous
        from learner.config import LearnerConfig
        from learner.types import TrainingSetup
        from learner.worker import LearnerWorker

        if self._worker is not None:
            self._worker.close()
        self._worker = None
        self._meeting = Rendezvous("127.0.0.1")
        setup = TrainingSetup(
            model_dir=model_dir,
            seed=0,
            temperature=1.0,
            total_steps=4,
            weight_dtype=engine_dtype,
            chunk_mib=1,
            deterministic=True,
        )
        place = RankPlace(rank=0, world_size=1, local_rank=0, on_gpu=False, rendezvous=self._meeting.address)
        config = LearnerConfig(dtype=dtype, lr=lr, threads=1, micro_batch_tokens=512)
        try:
            self._worker = LearnerWorker(config, setup, place)
        except BaseException:
            from learner.backend.engine import leave_ranks

            leave_ranks()
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._worker, name)

    def train(self, batch: Any) -> Any:
        from tests.learner.samples import train_step

        return train_step(self._worker, batch)

    def weights(self) -> tuple[WeightManifest, list[WeightChunk], str]:
        manifest = self._worker.weight_manifest()
        chunks = [self._worker.weight_chunk(index) for index in range(len(manifest.chunks))]
        return manifest, chunks, self._worker.weights_digest()
