"""The learner's end of a weight transfer (rollout/transfer/manifest.py): gathers what ZeRO has spread, casts, lays
flat.

Weights are gathered chunk by chunk: a rank never holds more than one chunk beyond its own share.
"""

import numpy as np
import torch
from torch import Tensor

from learner.backend.sharding import full_shape, gathered
from learner.model.policy import TORCH_DTYPES, LogprobModel
from rollout.transfer.manifest import (
    TensorSpec,
    WeightChunk,
    WeightManifest,
    plan_chunks,
    tensor_digests,
    weights_digest,
)


class WeightSender:
    """Produces one transfer after another from a module that is being trained.

    `manifest`, then `chunk(0)`, `chunk(1)`, ... in order, then `digest`. All ranks call all of them; rank 0 has the
    result of `chunk` and `digest`.
    """

    def __init__(self, model: LogprobModel, *, dtype: str, chunk_bytes: int, rank: int) -> None:
        # An engine takes its layers apart for new weights, and puts back together what came: buffers too.
        buffers = {name: value for name, value in model.named_buffers_in_files().items() if value.is_floating_point()}
        self._weights: dict[str, Tensor] = {**model.named_weights(), **buffers}
        self._dtype = TORCH_DTYPES[dtype]
        self._rank = rank
        specs = [
            TensorSpec(name=name, dtype=dtype, shape=full_shape(parameter)) for name, parameter in self._weights.items()
        ]
        self._chunks = plan_chunks(specs, chunk_bytes)
        self._policy_version = 0
        self._digests: dict[int, tuple[str, ...]] = {}

    def manifest(self, policy_version: int) -> WeightManifest:
        """Begins a transfer."""
        self._policy_version = policy_version
        self._digests = {}
        return WeightManifest(policy_version=policy_version, chunks=self._chunks)

    def chunk(self, index: int) -> WeightChunk | None:
        """One chunk on rank 0, None on the others."""
        specs = self._chunks[index]
        with gathered([self._weights[spec.name] for spec in specs]):
            if self._rank != 0:
                return None
            parts = [flat_bytes(self._weights[spec.name].detach().to(self._dtype)) for spec in specs]
        self._digests[index] = tensor_digests(parts)
        return WeightChunk(
            policy_version=self._policy_version,
            index=index,
            digests=self._digests[index],
            data=np.concatenate(parts),
        )

    def digest(self) -> str:
        """Digest of the whole set, after its last chunk; empty on ranks other than 0."""
        if self._rank != 0:
            return ""
        assert len(self._digests) == len(self._chunks), "the digest is known after the last chunk"
        pairs = [
            pair for index, specs in enumerate(self._chunks) for pair in zip(specs, self._digests[index], strict=True)
        ]
        return weights_digest(pairs)


def flat_bytes(tensor: Tensor) -> np.ndarray:
    """[bytes] uint8, on the CPU. numpy has no bfloat16, so the bytes are taken as they are."""
    return tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy()
