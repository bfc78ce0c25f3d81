"""Arrow arrays <-> NumPy arrays over the same buffers.

Arrow's own conversions import pandas where it is installed, which would cost the dashboard 60 MB and half a second.
"""

import math
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from cluster.columns import ROLLOUT_COLUMNS

_NUMPY: dict[str, type] = {
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
    "uint8": np.uint8,
    "uint16": np.uint16,
    "uint32": np.uint32,
    "uint64": np.uint64,
    "float": np.float32,
    "double": np.float64,
}


def arrow_types(*names: str) -> dict[str, Any]:
    """Columns of a table of rollouts -> their Arrow types, as they are written. Raises KeyError for no such column."""
    return {name: _arrow_type(ROLLOUT_COLUMNS[name]) for name in names}


def _arrow_type(kind: str) -> Any:
    if kind.startswith("list<"):
        return pyarrow.list_(_arrow_type(kind[5:-1]))
    return pyarrow.type_for_alias(kind)


def numpy_of(array: Any) -> NDArray[Any]:
    """Values of an Arrow array of numbers or flags; null is NaN, of integers 0, of flags False. Raises KeyError for
    other types."""
    if pyarrow.types.is_boolean(array.type):
        return _flags_of(array)
    kind = _NUMPY[str(array.type)]
    data = array.buffers()[1]
    if data is None:
        return np.zeros(len(array), dtype=kind)
    values: NDArray[Any] = np.frombuffer(data, dtype=kind, count=array.offset + len(array))[array.offset :]
    null = null_flags(array)
    if null is None:
        return values
    values = values.copy()
    values[null] = math.nan if values.dtype.kind == "f" else 0
    return values


def _flags_of(array: Any) -> NDArray[np.bool_]:
    data = array.buffers()[1]
    if data is None:
        return np.zeros(len(array), dtype=np.bool_)
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little", count=array.offset + len(array))
    flags: NDArray[np.bool_] = bits[array.offset :] == 1
    null = null_flags(array)
    return flags if null is None else flags & ~null


def null_flags(array: Any) -> NDArray[np.bool_] | None:
    """True where the array is null; None when it is so nowhere."""
    bits = array.buffers()[0]
    if bits is None or array.null_count == 0:
        return None
    flags = np.unpackbits(np.frombuffer(bits, dtype=np.uint8), bitorder="little", count=array.offset + len(array))
    null: NDArray[np.bool_] = flags[array.offset :] == 0
    return null


def list_lengths(array: Any) -> NDArray[np.int64]:
    """Lengths of the lists of an Arrow array of lists; 0 for null, so that they fit `array.flatten()`."""
    offsets = np.frombuffer(array.buffers()[1], dtype=np.int32, count=array.offset + len(array) + 1)[array.offset :]
    lengths = np.diff(offsets).astype(np.int64)
    null = null_flags(array)
    return lengths if null is None else np.where(null, 0, lengths)


def indices(places: list[int]) -> Any:
    """An Arrow array of integers."""
    data = np.array(places, dtype=np.int64)
    return pyarrow.Array.from_buffers(pyarrow.int64(), len(places), [None, pyarrow.py_buffer(data)])
