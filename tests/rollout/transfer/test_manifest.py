import dataclasses

import numpy as np
import pytest

from rollout.errors import EngineError, WeightSyncError
from rollout.transfer.delta import KeptBytes, difference
from rollout.transfer.manifest import (
    TensorSpec,
    WeightChunk,
    WeightManifest,
    WeightReceiver,
    plan_chunks,
    tensor_digest,
    weights_digest,
)

A = TensorSpec(name="a", dtype="float32", shape=(2, 3))
B = TensorSpec(name="b", dtype="bfloat16", shape=(5,))
C = TensorSpec(name="c", dtype="float16", shape=())
MANIFEST = WeightManifest(policy_version=3, chunks=((A, B), (C,)))


def chunk_of(index: int, *, version: int = 3, fill: int = 0) -> WeightChunk:
    data = np.arange(sum(t.num_bytes for t in MANIFEST.chunks[index]), dtype=np.uint8) + np.uint8(fill)
    digests, start = [], 0
    for tensor in MANIFEST.chunks[index]:
        digests.append(tensor_digest(data[start : start + tensor.num_bytes]))
        start += tensor.num_bytes
    return WeightChunk(policy_version=version, index=index, digests=tuple(digests), data=data)


def digest_of(chunks: list[WeightChunk]) -> str:
    return weights_digest([pair for c in chunks for pair in zip(MANIFEST.chunks[c.index], c.digests, strict=True)])


def receiver() -> WeightReceiver:
    return WeightReceiver(MANIFEST, receiver="sampler-0")


def test_sizes_follow_shape_and_dtype() -> None:
    assert (A.num_bytes, B.num_bytes, C.num_bytes) == (24, 10, 2)
    assert MANIFEST.num_bytes == 36


def test_chunks_are_filled_in_order_and_tensors_never_cut() -> None:
    assert plan_chunks([A, B, C], 34) == ((A, B), (C,))
    assert plan_chunks([A, B, C], 36) == ((A, B, C),)
    assert plan_chunks([A, B, C], 1) == ((A,), (B,), (C,))
    assert plan_chunks([], 34) == ()


def test_digest_is_xxh3_of_the_bytes_also_for_a_strided_view() -> None:
    assert tensor_digest(np.zeros(0, np.uint8)) == "99aa06d3014798d86001c324468d497f"  # of XXH3's own documents
    data = np.arange(8, dtype=np.uint8)
    assert tensor_digest(data[::2]) == tensor_digest(np.array([0, 2, 4, 6], np.uint8)) != tensor_digest(data[:4])


def test_digest_of_the_whole_is_independent_of_order_and_knows_name_dtype_and_shape() -> None:
    pairs = [(A, "1" * 64), (B, "2" * 64)]
    assert weights_digest(pairs) == weights_digest(pairs[::-1])
    for changed in ({"name": "z"}, {"dtype": "bfloat16"}, {"shape": (3, 2)}):
        assert weights_digest([(dataclasses.replace(A, **changed), "1" * 64), pairs[1]]) != weights_digest(pairs)


def test_a_whole_transfer_yields_the_bytes_and_the_digest() -> None:
    chunks = [chunk_of(0), chunk_of(1)]
    receiving = receiver()
    got = [(spec.name, bytes(data)) for chunk in reversed(chunks) for spec, data in receiving.accept(chunk)]
    assert got == [("c", bytes([0, 1])), ("a", bytes(range(24))), ("b", bytes(range(24, 34)))]
    assert receiving.finish(digest_of(chunks)) == digest_of(chunks)


def test_what_changed_is_put_on_what_was_kept_and_checked_like_all_else() -> None:
    kept, chunks = KeptBytes(), [chunk_of(0), chunk_of(1)]
    keeps = dataclasses.replace(MANIFEST, keeps=True)
    receiving = WeightReceiver(keeps, receiver="sampler-0", kept=kept)
    for chunk in chunks:
        receiving.accept(chunk)
    assert kept.digest == ""
    assert receiving.finish(digest_of(chunks)) == digest_of(chunks) == kept.digest

    chunks[0].data[:] = 0  # as when its memory is used for something else
    later = chunk_of(0)
    later.data[2] += 1
    later = dataclasses.replace(later, digests=(tensor_digest(later.data[:24]), later.digests[1]))
    delta = difference(chunk_of(0).data, later.data, word_bytes=2)
    told = dataclasses.replace(later, data=later.data[:0], delta=delta)
    receiving = WeightReceiver(keeps, receiver="sampler-0", kept=kept)
    assert kept.digest == ""
    assert [bytes(data) for _, data in receiving.accept(told)] == [bytes(later.data[:24]), bytes(later.data[24:])]

    for base, why in ((None, "nothing was kept of it"), (chunk_of(0).data[:2], "it changes word 1 of 1")):
        other = KeptBytes()
        receiving = WeightReceiver(keeps, receiver="sampler-0", kept=other)
        if base is not None:
            other.keep(0, base)
        with pytest.raises(EngineError, match=f"what changed in chunk 0 of weights version 3 does not fit.*{why}"):
            receiving.accept(told)
    other.keep(0, chunk_of(0, fill=1).data)  # of another version
    with pytest.raises(EngineError, match="tensor a of weights version 3 arrived altered"):
        receiving.accept(told)


def test_one_altered_bit_names_the_tensor_and_the_chunk_may_come_again() -> None:
    chunk = chunk_of(0)
    chunk.data[25] ^= 1
    receiving = receiver()
    with pytest.raises(WeightSyncError, match=r"sampler-0: tensor b of weights version 3 arrived altered"):
        receiving.accept(chunk)
    assert len(list(receiving.accept(chunk_of(0)))) == 2


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (chunk_of(0, version=2), "of weights version 2 came during the transfer of version 3"),
        (dataclasses.replace(chunk_of(0), index=2), "not in the manifest, which has 2 chunks"),
        (dataclasses.replace(chunk_of(0), index=-1), "not in the manifest"),
        (dataclasses.replace(chunk_of(0), data=chunk_of(0).data[:-1]), "has 33 bytes and 2 digests.* need 34 bytes"),
        (dataclasses.replace(chunk_of(0), digests=chunk_of(0).digests[:1]), "has 34 bytes and 1 digests"),
    ],
)
def test_a_chunk_that_does_not_fit_the_manifest_is_refused(chunk: WeightChunk, message: str) -> None:
    with pytest.raises(WeightSyncError, match=message):
        receiver().accept(chunk)


def test_a_chunk_that_comes_twice_is_refused() -> None:
    receiving = receiver()
    receiving.accept(chunk_of(1))
    with pytest.raises(WeightSyncError, match="chunk 1 of weights version 3 came twice"):
        receiving.accept(chunk_of(1))


def test_a_missing_chunk_is_named_by_its_first_tensor() -> None:
    receiving = receiver()
    receiving.accept(chunk_of(0))
    with pytest.raises(WeightSyncError, match="incomplete: 1 of 2 chunks never came, the first with tensor c"):
        receiving.finish("0" * 64)


def test_another_digest_of_the_whole_is_refused() -> None:
    receiving = receiver()
    for chunk in (chunk_of(0, fill=1), chunk_of(1)):
        receiving.accept(chunk)
    with pytest.raises(WeightSyncError, match="weights version 3 differ from what the learner sent"):
        receiving.finish(digest_of([chunk_of(0), chunk_of(1)]))
