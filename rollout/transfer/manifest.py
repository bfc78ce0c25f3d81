"""Moving weights from the learner to the engines: what travels, and how the receiver knows that it is whole.

A transfer is a manifest (version; name, dtype and shape of every tensor; which tensors stand in which chunk), then the
chunks, each a flat row of bytes with a digest for each tensor, then the digest of the whole. The bytes themselves go
through whatever carries numpy arrays between processes; this file knows no transport and no engine.

    sender                                   receiver
    manifest (names, shapes, layout)  ---->  WeightReceiver(manifest)
    chunk 0, 1, ... (bytes, digests)  ---->  accept(chunk): layout and digest of every tensor checked
    weights_digest                    ---->  finish(weights_digest): nothing missing, nothing twice
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from math import prod

import numpy as np

from rollout.errors import WeightSyncError

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
MAX_HASHERS = 8
"""Threads that hash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One weight, under its Hugging Face checkpoint name."""

    name: str
    dtype: str
    """Key of `DTYPE_BYTES`."""
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the tensor."""
        return prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightManifest:
    """What a transfer consists of. Known before any weight is gathered.

    Example:
        WeightManifest(policy_version=3, chunks=((TensorSpec(name="a", dtype="float32", shape=(2, 3)),),))
    """

    policy_version: int
    chunks: tuple[tuple[TensorSpec, ...], ...]
    """The tensors of each chunk, in the order in which they stand in its bytes."""

    @property
    def num_bytes(self) -> int:
        """Size of all tensors together."""
        return sum(tensor.num_bytes for chunk in self.chunks for tensor in chunk)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightChunk:
    """The tensors of one chunk, flattened and laid end to end."""

    policy_version: int
    index: int
    """Which chunk of the manifest."""
    digests: tuple[str, ...]
    """SHA-256 of each tensor's bytes, in hexadecimal, in the manifest's order."""
    data: np.ndarray
    """[bytes] uint8."""


def plan_chunks(tensors: Sequence[TensorSpec], chunk_bytes: int) -> tuple[tuple[TensorSpec, ...], ...]:
    """Splits tensors into chunks of at most `chunk_bytes`; a larger tensor gets a chunk of its own.

    Tensors are never cut: an engine may then load a chunk as it comes, without holding pieces.
    """
    chunks: list[tuple[TensorSpec, ...]] = []
    current: list[TensorSpec] = []
    size = 0
    for tensor in tensors:
        if current and size + tensor.num_bytes > chunk_bytes:
            chunks.append(tuple(current))
            current, size = [], 0
        current.append(tensor)
        size += tensor.num_bytes
    if current:
        chunks.append(tuple(current))
    return tuple(chunks)


def tensor_digest(data: np.ndarray) -> str:
    """SHA-256 of a flat uint8 array."""
    return hashlib.sha256(np.ascontiguousarray(data).data).hexdigest()


def tensor_digests(parts: Sequence[np.ndarray]) -> tuple[str, ...]:
    """`tensor_digest` of each, computed side by side: hashing a chunk takes longer than copying it, and lets other
    threads run."""
    return tuple(_hashers().map(tensor_digest, parts))


@cache
def _hashers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(MAX_HASHERS, len(os.sched_getaffinity(0))), thread_name_prefix="digest")


def weights_digest(digests: Sequence[tuple[TensorSpec, str]]) -> str:
    """Digest of a whole set of weights: independent of chunk size and of the order of sending."""
    whole = hashlib.sha256()
    for tensor, digest in sorted(digests, key=lambda item: item[0].name):
        whole.update(f"{tensor.name} {tensor.dtype} {list(tensor.shape)} {digest}\n".encode())
    return whole.hexdigest()


class WeightReceiver:
    """Checks a transfer as it arrives. One for each transfer.

    Errors: `WeightSyncError` that names the tensor, from `accept` and `finish`.
    """

    def __init__(self, manifest: WeightManifest, *, receiver: str) -> None:
        self._manifest = manifest
        self._receiver = receiver
        self._digests: dict[int, list[tuple[TensorSpec, str]]] = {}

    @property
    def policy_version(self) -> int:
        """Version of the weights that arrive."""
        return self._manifest.policy_version

    def accept(self, chunk: WeightChunk) -> Iterator[tuple[TensorSpec, np.ndarray]]:
        """Yields each tensor's spec and its bytes (a view of the chunk, uint8), after all of them were checked."""
        self._check_layout(chunk)
        tensors = self._manifest.chunks[chunk.index]
        ends = list(accumulate(tensor.num_bytes for tensor in tensors))
        parts = [chunk.data[start:end] for start, end in pairwise([0, *ends])]
        for tensor, sent, got in zip(tensors, chunk.digests, tensor_digests(parts), strict=True):
            if got != sent:
                raise WeightSyncError(
                    f"{self._receiver}: tensor {tensor.name} of weights version {chunk.policy_version} arrived altered "
                    f"(digest {got[:12]}, sent {sent[:12]}); its weights are not used"
                )
        self._digests[chunk.index] = list(zip(tensors, chunk.digests, strict=True))
        return zip(tensors, parts, strict=True)

    def finish(self, sent_digest: str) -> str:
        """Checks that every tensor came, and came as sent; returns the digest of the whole."""
        missing = [i for i in range(len(self._manifest.chunks)) if i not in self._digests]
        if missing:
            tensor = self._manifest.chunks[missing[0]][0]
            raise WeightSyncError(
                f"{self._receiver}: weights version {self.policy_version} are incomplete: {len(missing)} of "
                f"{len(self._manifest.chunks)} chunks never came, the first with tensor {tensor.name}"
            )
        got = weights_digest([item for items in self._digests.values() for item in items])
        if got != sent_digest:
            raise WeightSyncError(
                f"{self._receiver}: weights version {self.policy_version} differ from what the learner sent "
                f"(digest {got[:12]}, sent {sent_digest[:12]})"
            )
        return got

    def _check_layout(self, chunk: WeightChunk) -> None:
        where = f"{self._receiver}: chunk {chunk.index} of weights version {chunk.policy_version}"
        if chunk.policy_version != self.policy_version:
            raise WeightSyncError(f"{where} came during the transfer of version {self.policy_version}")
        if not 0 <= chunk.index < len(self._manifest.chunks):
            raise WeightSyncError(f"{where} is not in the manifest, which has {len(self._manifest.chunks)} chunks")
        if chunk.index in self._digests:
            raise WeightSyncError(f"{where} came twice")
        tensors = self._manifest.chunks[chunk.index]
        want = sum(tensor.num_bytes for tensor in tensors)
        if chunk.data.nbytes != want or len(chunk.digests) != len(tensors):
            raise WeightSyncError(
                f"{where} has {chunk.data.nbytes} bytes and {len(chunk.digests)} digests; its {len(tensors)} tensors, "
                f"the first {tensors[0].name}, need {want} bytes"
            )
