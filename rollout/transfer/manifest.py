"""Moving weights from the learner to the engines: what travels, and how the receiver knows that it is whole.

A transfer is a manifest (version; name, dtype and shape of every tensor; which tensors stand in which chunk), then the
chunks, each a flat row of bytes with a digest for each tensor, then the digest of the whole. The bytes themselves go
through whatever carries numpy arrays between processes; this file knows no transport and no engine.

    sender                                   receiver
    manifest (names, shapes, layout)  ---->  WeightReceiver(manifest)
    chunk 0, 1, ... (bytes, digests)  ---->  accept(chunk): layout and digest of every tensor checked
    (where both kept the bytes of the transfer before, a chunk may be what changed since: delta.py)
    weights_digest                    ---->  finish(weights_digest): nothing missing, nothing twice
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod

import numpy as np
import xxhash

from rollout.errors import EngineError, WeightSyncError
from rollout.transfer.delta import Delta, KeptBytes, apply

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


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
    keeps: bool = False
    """Whether both ends keep the bytes, so that the next transfer can be told as what changed."""
    base: str = ""
    """Digest of the weights whose bytes the sender kept; empty where it has none."""

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
    """`tensor_digest` of each tensor, in the manifest's order."""
    data: np.ndarray
    """[bytes] uint8; empty where `delta` tells them."""
    delta: Delta | None = None
    """How they differ from those of the manifest's `base`."""


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
    """XXH3 of 128 bits of a flat uint8 array, in hexadecimal. It is to find damage, not forgery, and is three times as
    fast as a copy of memory, where SHA-256 is nine times slower than one (measured: 30, 9 and 1 GB/s)."""
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(data).data)


def weights_digest(digests: Sequence[tuple[TensorSpec, str]]) -> str:
    """Digest of a whole set of weights: independent of chunk size and of the order of sending."""
    whole = hashlib.sha256()
    for tensor, digest in sorted(digests, key=lambda item: item[0].name):
        whole.update(f"{tensor.name} {tensor.dtype} {list(tensor.shape)} {digest}\n".encode())
    return whole.hexdigest()


class WeightReceiver:
    """Checks a transfer as it arrives. One for each transfer.

    Errors: `WeightSyncError` that names the tensor, from `accept` and `finish`; `EngineError` from `accept` of what
    changed, which a new process, that has kept nothing, is sent whole.
    """

    def __init__(self, manifest: WeightManifest, *, receiver: str, kept: KeptBytes | None = None) -> None:
        """`kept` is of the transfer before, and after this one of this one, where the manifest wants it kept."""
        self._manifest = manifest
        self._receiver = receiver
        self._kept = kept if kept is not None else KeptBytes()
        self._kept.begin(keeps=manifest.keeps)
        self._digests: dict[int, list[tuple[TensorSpec, str]]] = {}

    @property
    def policy_version(self) -> int:
        """Version of the weights that arrive."""
        return self._manifest.policy_version

    def accept(self, chunk: WeightChunk) -> Iterator[tuple[TensorSpec, np.ndarray]]:
        """Yields each tensor's spec and its bytes (uint8, read-only where they are shared), after all of them were
        checked. Errors: `WeightSyncError`; `EngineError` where what changed does not fit what was kept."""
        self._check_layout(chunk)
        tensors = self._manifest.chunks[chunk.index]
        data = chunk.data if chunk.delta is None else self._changed(chunk, chunk.delta)
        # What a difference was put on may be what is damaged: a new process, which has kept nothing, is sent all.
        refused = WeightSyncError if chunk.delta is None else EngineError
        ends = list(accumulate(tensor.num_bytes for tensor in tensors))
        parts = [data[start:end] for start, end in pairwise([0, *ends])]
        for tensor, sent, part in zip(tensors, chunk.digests, parts, strict=True):
            got = tensor_digest(part)
            if got != sent:
                raise refused(
                    f"{self._receiver}: tensor {tensor.name} of weights version {chunk.policy_version} arrived altered "
                    f"(digest {got[:12]}, sent {sent[:12]}); its weights are not used"
                )
        self._digests[chunk.index] = list(zip(tensors, chunk.digests, strict=True))
        if self._manifest.keeps:
            # What came whole lies in memory that is shared with the sender, and is given back.
            self._kept.keep(chunk.index, data if chunk.delta is not None else data.copy())
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
        self._kept.finish(got)
        return got

    def _changed(self, chunk: WeightChunk, delta: Delta) -> np.ndarray:
        old = self._kept.chunk(chunk.index)
        try:
            if old is None:
                raise ValueError("nothing was kept of it")
            return apply(old, delta)
        except ValueError as error:
            raise EngineError(
                f"{self._receiver}: what changed in chunk {chunk.index} of weights version {chunk.policy_version} does "
                f"not fit what was kept of the version before: {error}"
            ) from error

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
        if (chunk.delta is None and chunk.data.nbytes != want) or len(chunk.digests) != len(tensors):
            raise WeightSyncError(
                f"{where} has {chunk.data.nbytes} bytes and {len(chunk.digests)} digests; its {len(tensors)} tensors, "
                f"the first {tensors[0].name}, need {want} bytes"
            )
