import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from learner.model.policy import build_policy
from learner.transfer.sender import WeightSender
from rollout.transfer.delta import KeptBytes
from rollout.transfer.manifest import WeightReceiver
from tests.learner.samples import save_toy_model

TORCH = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
def test_what_is_received_is_what_the_model_has(tmp_path: Path, dtype: str, tied: bool) -> None:
    model = build_policy(save_toy_model(tmp_path / "m", tied=tied), dtype="float32", gradient_checkpointing=False)
    sender = WeightSender(model, dtype=dtype, chunk_bytes=30_000, rank=0)
    manifest = sender.manifest(4)
    receiver = WeightReceiver(manifest, receiver="test")
    received: dict[str, torch.Tensor] = {}
    for index in range(len(manifest.chunks)):
        chunk = sender.chunk(index)
        assert chunk is not None
        for spec, data in receiver.accept(chunk):
            received[spec.name] = torch.from_numpy(data.copy()).view(TORCH[dtype]).view(spec.shape)
    assert receiver.finish(sender.digest()) == sender.digest()
    assert len(manifest.chunks) > 2
    assert ("lm_head.weight" in received) != tied
    expected = {name: weight.detach().to(TORCH[dtype]) for name, weight in model.policy.named_parameters()}
    assert set(received) == set(expected)
    assert all(torch.equal(received[name], expected[name]) for name in expected)


def test_the_digest_follows_the_weights_and_not_the_chunks(tmp_path: Path) -> None:
    model = build_policy(save_toy_model(tmp_path / "m"), dtype="float32", gradient_checkpointing=False)
    digests = []
    for chunk_bytes in (20_000, 10**9):
        sender = WeightSender(model, dtype="float32", chunk_bytes=chunk_bytes, rank=0)
        for index in range(len(sender.manifest(0).chunks)):
            assert sender.chunk(index) is not None
        digests.append(sender.digest())
    assert digests[0] == digests[1]
    with torch.no_grad():
        weight = next(iter(model.named_weights().values()))
        weight[1, 0] = torch.nextafter(weight[1, 0], torch.tensor(1e9))
    for index in range(len(sender.manifest(1).chunks)):
        sender.chunk(index)
    assert sender.digest() != digests[0]


def sent(sender: WeightSender, version: int, kept: KeptBytes) -> tuple[dict[str, torch.Tensor], int]:
    """Weights as received, and the bytes that it took."""
    manifest = sender.manifest(version)
    as_delta = manifest.base == kept.digest != ""
    receiver = WeightReceiver(manifest, receiver="test", kept=kept)
    weights: dict[str, torch.Tensor] = {}
    for index in range(len(manifest.chunks)):
        chunk = sender.chunk(index, as_delta=as_delta)
        assert chunk is not None
        for spec, data in receiver.accept(pickle.loads(pickle.dumps(chunk))):
            weights[spec.name] = torch.from_numpy(data.copy()).view(TORCH["bfloat16"]).view(spec.shape)
    receiver.finish(sender.digest())
    return weights, sender.num_bytes_sent


def test_what_changed_is_told_as_that_and_arrives_exactly(tmp_path: Path) -> None:
    model = build_policy(save_toy_model(tmp_path / "m"), dtype="float32", gradient_checkpointing=False)
    sender = WeightSender(model, dtype="bfloat16", chunk_bytes=20_000, rank=0, keeps=True)
    kept, whole = KeptBytes(), sender.manifest(0).num_bytes
    generator = torch.Generator().manual_seed(0)

    def move(size: float) -> None:
        with torch.no_grad():
            for weight in model.named_weights().values():
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=size)

    def check(weights: dict[str, torch.Tensor]) -> None:
        assert all(
            torch.equal(weights[name], weight.to(torch.bfloat16)) for name, weight in model.policy.named_parameters()
        )

    found = {}
    for version, size in enumerate((0.0, 1e-6, 1e-6, 1.0, 0.0)):
        move(size)
        weights, found[version] = sent(sender, version, kept)
        check(weights)
    assert found[0] == whole
    assert 0 < found[1] < 0.1 * whole
    assert 0 < found[2] < 0.1 * whole
    assert found[3] == whole  # nearly everything changed
    assert found[4] < 0.01 * whole

    with pytest.raises(ValueError, match="read-only"):
        kept.chunk(0)[0] = 1  # type: ignore[index]

    # A transfer that broke leaves chunks of two versions: the next is whole.
    move(1e-6)
    sender.manifest(5)
    sender.chunk(0, as_delta=True)
    move(1e-6)
    weights, num_bytes = sent(sender, 6, kept)
    check(weights)
    assert num_bytes == whole


def test_other_ranks_send_nothing(tmp_path: Path) -> None:
    model = build_policy(save_toy_model(tmp_path / "m"), dtype="float32", gradient_checkpointing=False)
    sender = WeightSender(model, dtype="float32", chunk_bytes=10**9, rank=1)
    sender.manifest(0)
    assert sender.chunk(0) is None
    assert sender.digest() == ""


def test_constants_that_stand_in_the_files_travel_with_the_weights(tmp_path: Path) -> None:
    """An engine takes a layer apart for new weights: what does not come with them is gone."""
    model = build_policy(save_toy_model(tmp_path / "m"), dtype="float32", gradient_checkpointing=False)
    layer = model.policy.model.layers[0]
    layer.register_buffer("slope", torch.tensor([1.5, -2.0]))
    layer.register_buffer("steps", torch.tensor([3]))
    layer.register_buffer("cache", torch.tensor([9.0]), persistent=False)
    names = {
        spec.name for chunk in WeightSender(model, dtype="float32", chunk_bytes=64, rank=0)._chunks for spec in chunk
    }
    assert names - set(model.named_weights()) == {"model.layers.0.slope"}, "numbers that are counted are not weights"
    sender = WeightSender(model, dtype="bfloat16", chunk_bytes=64, rank=0)
    receiver = WeightReceiver(sender.manifest(1), receiver="test")
    received: dict[str, np.ndarray] = {}
    for index in range(len(sender._chunks)):
        chunk = sender.chunk(index)
        assert chunk is not None
        received |= {spec.name: data.copy() for spec, data in receiver.accept(chunk)}
    slope = torch.from_numpy(received["model.layers.0.slope"]).view(torch.bfloat16)
    assert slope.tolist() == [1.5, -2.0]
