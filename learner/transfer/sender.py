"""The learner's end of a weight transfer (rollout/transfer/manifest.py): gathers what ZeRO has spread, and lays it flat
in the engines' dtype, in one pass over memory.

Weights are gathered chunk by chunk: a rank never holds more than one chunk beyond its own share, but for rank 0 where
it keeps what it sent.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from learner.backend.sharding import full_shape, gathered
from learner.model.policy import TORCH_DTYPES, LogprobModel
from rollout.transfer.delta import KeptBytes, difference
from rollout.transfer.manifest import (
    TensorSpec,
    WeightChunk,
    WeightManifest,
    plan_chunks,
    tensor_digest,
    weights_digest,
)


class WeightSender:
    """Produces one transfer after another from a module that is being trained.

    `manifest`, then `chunk(0)`, `chunk(1)`, ... in order, then `digest`. All ranks call all of them; rank 0 has the
    result of `chunk` and `digest`.
    """

    def __init__(self, model: LogprobModel, *, dtype: str, chunk_bytes: int, rank: int, keeps: bool = False) -> None:
        """`keeps` the bytes of a transfer, so that the next may be told as what changed."""
        # An engine takes its layers apart for new weights, and puts back together what came: buffers too.
        buffers = {name: value for name, value in model.named_buffers_in_files().items() if value.is_floating_point()}
        self._weights: dict[str, Tensor] = {**model.named_weights(), **buffers}
        self._dtype = TORCH_DTYPES[dtype]
        self._rank = rank
        specs = [
            TensorSpec(name=name, dtype=dtype, shape=full_shape(parameter)) for name, parameter in self._weights.items()
        ]
        self._chunks = plan_chunks(specs, chunk_bytes)
        self._keeps = keeps
        self._kept = KeptBytes()
        self._policy_version = 0
        self._digests: dict[int, tuple[str, ...]] = {}
        self.num_bytes_sent = 0
        """Of the transfer that goes on, or the last; what was told as a difference is counted as that."""

    def manifest(self, policy_version: int) -> WeightManifest:
        """Begins a transfer."""
        self._policy_version = policy_version
        self._digests = {}
        self.num_bytes_sent = 0
        base = self._kept.digest
        self._kept.begin(keeps=self._keeps)
        return WeightManifest(policy_version=policy_version, chunks=self._chunks, keeps=self._keeps, base=base)

    def chunk(self, index: int, *, as_delta: bool = False) -> WeightChunk | None:
        """One chunk on rank 0, None on the others. `as_delta` where every receiver has the manifest's `base`: told as
        what changed since, where that is less."""
        specs = self._chunks[index]
        with gathered([self._weights[spec.name] for spec in specs]):
            if self._rank != 0:
                return None
            data, digests = self._lay_flat(specs)
        self._digests[index] = digests
        old = self._kept.chunk(index)
        delta = difference(old, data, word_bytes=self._dtype.itemsize) if as_delta and old is not None else None
        if self._keeps:
            self._kept.keep(index, data)
        self.num_bytes_sent += data.nbytes if delta is None else delta.data.nbytes
        return WeightChunk(
            policy_version=self._policy_version,
            index=index,
            digests=digests,
            data=data if delta is None else data[:0],
            delta=delta,
        )

    def digest(self) -> str:
        """Digest of the whole set, after its last chunk; empty on ranks other than 0."""
        if self._rank != 0:
            return ""
        assert len(self._digests) == len(self._chunks), "the digest is known after the last chunk"
        pairs = [
            pair for index, specs in enumerate(self._chunks) for pair in zip(specs, self._digests[index], strict=True)
        ]
        digest = weights_digest(pairs)
        self._kept.finish(digest)
        return digest

    def _lay_flat(self, specs: Sequence[TensorSpec]) -> tuple[np.ndarray, tuple[str, ...]]:
        """[bytes] uint8, and the digest of each tensor."""
        data = np.empty(sum(spec.num_bytes for spec in specs), np.uint8)
        # numpy has no bfloat16: torch sees the bytes as what they are, and casts while it copies.
        flat = torch.from_numpy(data).view(self._dtype)
        digests, start = [], 0
        for spec in specs:
            end = start + spec.num_bytes
            flat[start // flat.itemsize : end // flat.itemsize].copy_(self._weights[spec.name].detach().reshape(-1))
            digests.append(tensor_digest(data[start:end]))  # while they are in the cache
            start = end
        return data, tuple(digests)
