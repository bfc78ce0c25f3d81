"""A transfer told as what changed since the one before: exact, and a small part of the bytes where little changes.

An optimizer step moves a weight of bfloat16 only where the sum of its moves passes half a unit of the last place: at a
learning rate of 1e-6 that is one weight in thirty or fewer. Which ones, and to what, is written as the distance to the
changed word before and the bits that differ, byte plane by byte plane, and compressed (Zstandard): about 11 bits for a
changed word.

Both ends keep the bytes of the last transfer for it, two bytes a weight in bfloat16. In float32 nearly every word
changes; such a chunk travels whole.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]

WORTH_IT = 0.25
"""Share of changed words above which a chunk travels whole: what is saved costs more than it saves."""
Word: TypeAlias = np.uint16 | np.uint32
WORDS: dict[int, type[Word]] = {2: np.uint16, 4: np.uint32}
GAP_BYTES = 4
_CODEC = "zstd"
_LEVEL = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delta:
    """How the words of a chunk differ from those that were sent before."""

    num_changed: int
    word_bytes: int
    """2 or 4."""
    data: Bytes
    """[bytes] compressed planes: those of the distances, then those of the bits that differ."""


def difference(old: Bytes, new: Bytes, *, word_bytes: int, most: float = WORTH_IT) -> Delta | None:
    """What turns `old` into `new`; None where more than the share `most` of the words changed."""
    import pyarrow as pa

    words = WORDS[word_bytes]
    xor = np.bitwise_xor(old.view(words), new.view(words))
    if np.count_nonzero(xor) > most * len(xor):  # before there are eight bytes for each of them
        return None
    places = np.flatnonzero(xor)
    gaps = np.diff(places, prepend=-1).astype(np.uint32)
    planes = [_planes(gaps), _planes(xor[places])]
    packed = pa.Codec(_CODEC, _LEVEL).compress(np.concatenate(planes), asbytes=True)
    return Delta(num_changed=len(places), word_bytes=word_bytes, data=np.frombuffer(packed, np.uint8))


def apply(old: Bytes, delta: Delta) -> Bytes:
    """`old` with the difference; a new array. Raises ValueError for a delta that does not fit `old`."""
    import pyarrow as pa

    words, num = WORDS[delta.word_bytes], delta.num_changed
    if not num:
        return old.copy()
    size = num * (GAP_BYTES + delta.word_bytes)
    try:
        planes = np.frombuffer(pa.Codec(_CODEC).decompress(delta.data, size, asbytes=True), np.uint8)
    except OSError as error:
        raise ValueError(f"it cannot be unpacked ({error})") from error
    gaps = _words(planes[: GAP_BYTES * num], np.uint32)
    places = np.cumsum(gaps, dtype=np.int64) - 1
    new = old.copy()
    if places[-1] >= len(new) // delta.word_bytes:
        raise ValueError(f"it changes word {places[-1]} of {len(new) // delta.word_bytes}")
    view = new.view(words)
    view[places] = np.bitwise_xor(view[places], _words(planes[GAP_BYTES * num :], words))
    return new


class KeptBytes:
    """The chunks of the last whole transfer at one end of it."""

    def __init__(self) -> None:
        self._chunks: dict[int, Bytes] = {}
        self._digest = ""

    @property
    def digest(self) -> str:
        """Of the weights whose bytes are all here; empty in the middle of a transfer, and after a broken one."""
        return self._digest

    def begin(self, *, keeps: bool) -> None:
        """A transfer begins: until it is finished the chunks are of two versions. What is not kept up is let go."""
        self._digest = ""
        if not keeps:
            self._chunks = {}

    def chunk(self, index: int) -> Bytes | None:
        """What was kept of it."""
        return self._chunks.get(index)

    def keep(self, index: int, data: Bytes) -> None:
        """Takes the place of what was kept. Nobody may write into it any more."""
        data.flags.writeable = False
        self._chunks[index] = data

    def finish(self, digest: str) -> None:
        """All chunks of these weights were kept, if any."""
        self._digest = digest if self._chunks else ""


def _planes(words: NDArray[Word]) -> Bytes:
    """The first byte of every word, then the second, and so on: equal ones stand together."""
    return np.ascontiguousarray(words.view(np.uint8).reshape(-1, words.itemsize).T).reshape(-1)


def _words(planes: Bytes, dtype: type[Word]) -> NDArray[Word]:
    return np.frombuffer(np.ascontiguousarray(planes.reshape(np.dtype(dtype).itemsize, -1).T), dtype)
