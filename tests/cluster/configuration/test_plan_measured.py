"""The memory and the checkpoint that a plan says, against those of a real learner: two ranks, every ZeRO stage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.configuration.loading import load_config
from cluster.configuration.model_shapes import model_shape
from cluster.configuration.plan import make_plan
from learner.backend.deepspeed_config import BUCKET_ELEMENTS
from learner.backend.engine import RendezvousAddress, TrainingEngine
from tests.learner.ranks import run_ranks
from tests.learner.samples import train_batch, train_step
from tests.learner.test_worker import make_worker

pytestmark = pytest.mark.integration

STAGES = (0, 1, 2, 3)
BUCKET_BYTES = BUCKET_ELEMENTS * 4
SMALL = ("activations of a micro-batch", "logits of a chunk and their gradient")
"""What a toy's few tokens have almost nothing of."""


def save_wide_model(directory: Path) -> str:
    """A Llama of 6.6 million weights, so that weights outweigh the activations of a few tokens."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    build: Any = AutoModelForCausalLM.from_config  # a library function without types
    build(config).save_pretrained(directory)
    return str(directory)


def live_tensors() -> dict[int, int]:
    """Bytes of each memory that a tensor of this process stands in, by address."""
    import torch

    found: dict[int, int] = {}
    for value in gc.get_objects():
        if isinstance(value, torch.Tensor):
            for tensor in (value, value.grad) if value.is_leaf else (value,):
                if tensor is not None:
                    storage = tensor.untyped_storage()
                    found[storage.data_ptr()] = storage.nbytes()
    return found


@contextmanager
def peak_noted(before: set[int]) -> Iterator[list[int]]:
    """The most bytes in tensors that are not in `before`, DeepSpeed's buckets left out, around each backward pass."""
    most = [0]

    def note() -> None:
        gc.collect()  # what nobody can reach any more is there or not as the collector had its turn
        sizes = (size for address, size in live_tensors().items() if address not in before)
        most[0] = max(most[0], sum(size for size in sizes if size != BUCKET_BYTES))

    backward = TrainingEngine.backward

    def noting(engine: TrainingEngine, loss: Any) -> None:
        note()
        backward(engine, loss)
        note()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingEngine, "backward", noting)
        yield most


def measure(
    rank: int, world_size: int, addresses: list[RendezvousAddress], model_dir: str, out: str
) -> dict[int, tuple[int, int]]:
    """For each stage: bytes in tensors, and bytes of the checkpoint, as far as this rank sees them."""
    measured = {}
    for stage, address in zip(STAGES, addresses, strict=True):
        gc.collect()
        with peak_noted(set(live_tensors())) as most:
            worker = make_worker(rank, world_size, address, model_dir, zero_stage=stage)
            for step in range(2):
                train_step(worker, train_batch(step))
        folder = Path(out) / str(stage)
        worker.save(str(folder))
        worker.close()
        del worker
        measured[stage] = most[0], sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return measured


def test_memory_and_checkpoints_are_the_planned_ones_within_a_tenth(tmp_path: Path) -> None:
    model_dir = save_wide_model(tmp_path / "model")
    measured = run_ranks(measure, 2, len(STAGES), model_dir, str(tmp_path), deadline_s=500.0)
    shape = model_shape(model_dir)
    assert shape is not None
    for stage in STAGES:
        words = [f"model.path={model_dir}", f"learner.zero_stage={stage}", "learner.num_ranks=2", "checkpoint.keep=1"]
        plan = make_plan(load_config("tiny", [*words, "learner.objective.kl.coef=0.04"]))
        parts = {part.what: part.num_bytes for part in plan.memory if part.role == "learner"}
        assert parts.pop("gradients on their way between ranks", BUCKET_BYTES) == BUCKET_BYTES
        planned = sum(size or 0 for what, size in parts.items() if what not in SMALL)
        for rank, of_stage in enumerate(measured):
            assert of_stage[stage][0] == pytest.approx(planned, rel=0.1), f"stage {stage}, rank {rank}"
        assert plan.checkpoint_bytes is not None
        assert measured[0][stage][1] == pytest.approx(plan.checkpoint_bytes / 2, rel=0.1), f"stage {stage}"
