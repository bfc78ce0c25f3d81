"""The indexed rollouts as NumPy columns: what filters compare and what tables are sorted by.

The files that are indexed stand one after the other, an evaluation before the training step of the same number; n rows
in all, a column is [n]. Columns are read from the index when they are first asked for.
"""

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.dashboard.index.schema import FILE_SHIFT

Read = Callable[[], AbstractContextManager[sqlite3.Connection]]
Mask = NDArray[np.bool_]
_INTEGER_COLUMNS = ("group", "outcome", "finish", "answer", "episode_outcome")
_MAX_COLUMN_BYTES = 40 << 20
"""Of columns that are kept in memory; the ones not used for longest go first."""
_MAX_NEEDLES = 8
_SAMPLE_BYTES = 2048
"""By which the rarest byte of a text is guessed."""


@dataclass(frozen=True, slots=True)
class FileRows:
    """Where a file's rows are: [start, stop) of every column."""

    id: int
    phase: str
    step: int
    start: int
    stop: int
    num_groups: int


class Columns:
    """The rollouts at one state of the index. Safe to use from several threads."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, NDArray[Any]] = OrderedDict()
        files = []
        start = 0
        with read() as connection:
            for id_, phase, step, rows, groups in connection.execute(
                "select id, phase, step, num_rows, num_groups from files where num_rows > 0"
                " order by step, phase = 'train', id"
            ):
                files.append(FileRows(id_, phase, step, start, start + rows, groups))
                start += rows
        self.files = tuple(files)
        self.size = start
        self._starts = np.array([file.start for file in files], dtype=np.int64)
        self._file_ids = np.array([file.id for file in files], dtype=np.int64)
        self._place = {file.id: file for file in files}

    def row_ids(self, places: NDArray[np.int64]) -> list[int]:
        """Ids in the table `rows`."""
        if not len(places):
            return []
        file = np.searchsorted(self._starts, places, side="right") - 1
        ids: list[int] = ((self._file_ids[file] << FILE_SHIFT) + places - self._starts[file]).tolist()
        return ids

    def places(self, ids: Sequence[int]) -> NDArray[np.int64]:
        """Of rows with these ids; of a file that is not among these columns there is none."""
        found = ((self._place.get(id_ >> FILE_SHIFT), id_ & ((1 << FILE_SHIFT) - 1)) for id_ in ids)
        return np.array(
            [file.start + at for file, at in found if file is not None and at < file.stop - file.start], dtype=np.int64
        )

    def column(self, name: str) -> NDArray[Any]:
        """float32 with NaN for absent, or int32 with -1; unknown names are absent everywhere."""
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
                return self._kept[name]
        array = self._per_file(name) if name in ("step", "phase", "global_group") else self._from_chunks(name)
        with self._lock:
            self._kept[name] = array
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > _MAX_COLUMN_BYTES:
                self._kept.popitem(last=False)
        return array

    def group_column(self, ids: list[int]) -> Mask:
        """Rows of the groups with these ids of the table `groups`."""
        flags = np.zeros(sum(file.num_groups for file in self.files) + 1, dtype=bool)
        first = self._first_groups()
        for id_ in ids:
            start = first.get(id_ >> FILE_SHIFT)
            if start is not None:
                flags[start + (id_ & ((1 << FILE_SHIFT) - 1))] = True
        rows: Mask = flags[self.column("global_group")]
        return rows

    def group_ranks(self, ids: list[int], ranks: list[int]) -> NDArray[np.int32]:
        """[n] rank of each row's group, from the rank of each of the groups."""
        table = np.zeros(sum(file.num_groups for file in self.files) + 1, dtype=np.int32)
        first = self._first_groups()
        for id_, rank in zip(ids, ranks, strict=True):
            start = first.get(id_ >> FILE_SHIFT)
            if start is not None:
                table[start + (id_ & ((1 << FILE_SHIFT) - 1))] = rank
        rows: NDArray[np.int32] = table[self.column("global_group")]
        return rows

    def _first_groups(self) -> dict[int, int]:
        first, total = {}, 0
        for file in self.files:
            first[file.id] = total
            total += file.num_groups
        return first

    def _per_file(self, name: str) -> NDArray[Any]:
        if name == "step":
            return self._repeat([file.step for file in self.files], np.int32)
        if name == "phase":
            return self._repeat([file.phase == "train" for file in self.files], np.int8)
        first = self._first_groups()
        groups: NDArray[Any] = self.column("group") + self._repeat([first[file.id] for file in self.files], np.int32)
        return groups

    def _repeat(self, values: list[int] | list[bool], kind: type) -> NDArray[Any]:
        counts = [file.stop - file.start for file in self.files]
        return np.repeat(np.array(values, dtype=kind), counts)

    def _from_chunks(self, name: str) -> NDArray[Any]:
        whole = name in _INTEGER_COLUMNS
        array = np.full(self.size, -1, np.int32) if whole else np.full(self.size, np.nan, np.float32)
        with self._read() as connection:
            for file_id, data in connection.execute("select file, data from chunks where name = ?", (name,)):
                file = self._place.get(file_id)
                values = np.frombuffer(data, dtype=array.dtype)
                if file is not None and len(values) == file.stop - file.start:
                    array[file.start : file.stop] = values
        return array


def mean_of_known(values: NDArray[Any]) -> float | None:
    """Mean of what is not NaN; None where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean(dtype=np.float64)) if known.size else None


class TextSearch:
    """Which completions contain a text. What was found is kept for each file, so that only new files are searched."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._found: OrderedDict[bytes, dict[int, Mask]] = OrderedDict()

    def forget(self) -> None:
        """After the index was made anew: its files have other ids."""
        with self._lock:
            self._found.clear()

    def rows(self, columns: Columns, needle: str) -> Mask:
        """[n] True where the completion contains `needle`; A-Z and a-z are the same."""
        wanted = needle.encode("utf-8", "backslashreplace").lower()
        mask = np.zeros(columns.size, dtype=bool)
        if not wanted:
            return ~mask
        known = self._known(wanted)
        with self._read() as connection:
            for file in columns.files:
                found = known.get(file.id)
                # Another length: noted for another file, by a search that went on while the index was made anew.
                if found is None or len(found) != file.stop - file.start:
                    found = known[file.id] = _search_file(connection, file, wanted)
                mask[file.start : file.stop] = found
        return mask

    def _known(self, needle: bytes) -> dict[int, Mask]:
        with self._lock:
            known = self._found.setdefault(needle, {})
            self._found.move_to_end(needle)
            while len(self._found) > _MAX_NEEDLES:
                self._found.popitem(last=False)
            return known


def _search_file(connection: sqlite3.Connection, file: FileRows, needle: bytes) -> Mask:
    found = np.zeros(file.stop - file.start, dtype=bool)
    for positions, offsets, data in connection.execute(
        "select positions, offsets, data from texts where file = ?", (file.id,)
    ):
        at = _occurrences(data, needle)
        bounds = np.frombuffer(offsets, dtype=np.int64)
        first = np.searchsorted(at, bounds)  # per completion its first occurrence, for a letter has millions of them
        hit = first[:-1] < first[1:]
        found[np.frombuffer(positions, dtype=np.int32)[hit]] = True
    return found


def _occurrences(data: bytes, needle: bytes) -> NDArray[np.int64]:
    """Where the needle begins. Looks for its rarest byte first, and for the whole only where that one is: faster than
    a search that stops at every occurrence, of which a common word has half a million."""
    size = len(data) - len(needle) + 1
    if size <= 0:
        return np.zeros(0, dtype=np.int64)
    characters = np.frombuffer(data, dtype=np.uint8)
    common = np.bincount(characters[:_SAMPLE_BYTES], minlength=256)
    rarest = min(range(len(needle)), key=lambda place: common[needle[place]])
    at = np.flatnonzero(characters[rarest : rarest + size] == needle[rarest])
    place = 0
    for width in (8, 4, 2, 1):
        # The data as integers that begin at every byte: eight characters are compared at once.
        kind = np.dtype(f"<u{width}")
        words = np.ndarray((max(0, len(data) - width + 1),), kind, data, 0, (1,))
        while len(needle) - place >= width and len(at):
            at = at[words[at + place] == np.frombuffer(needle, kind, 1, place)[0]]
            place += width
    return at
