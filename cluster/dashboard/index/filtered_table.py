"""The table of rollouts, filtered and sorted, at the index's present state; the last few tables are kept."""

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from cluster.dashboard.files.annotations import AnnotationFile
from cluster.dashboard.index.columns import Columns, Read, TextSearch
from cluster.dashboard.index.filters import parse_filter, parse_sort
from cluster.dashboard.index.index_query import Evaluator

_KEPT_RESULTS = 4
"""Filtered and sorted tables that are kept, each 4 bytes a row: the next page of the same table costs nothing."""


_Key = tuple[str, str, tuple[int, int, int] | None]
"""Filter, sort, state of the annotations."""


class FilteredTable:
    """Safe to use from several threads."""

    def __init__(self, read: Read, annotations: AnnotationFile) -> None:
        self._read = read
        self._annotations = annotations
        self._lock = threading.Lock()
        self._search = TextSearch(read)
        self._columns: Columns | None = None
        self._results: OrderedDict[_Key, NDArray[np.int32]] = OrderedDict()

    def rows(self, filter_text: str, sort: str) -> tuple[Columns, NDArray[np.int32]]:
        """(columns, places of the rows that pass, in the order of the sort). Raises FilterError."""
        node = parse_filter(filter_text)
        field, descending = parse_sort(sort)
        # Its state before it is read: should it change meanwhile, this result is asked for by nobody.
        key = (filter_text.strip(), sort.strip(), self._annotations.stamp())
        with self._lock:
            if self._columns is None:
                self._columns = Columns(self._read)
            columns, places = self._columns, self._results.get(key)
        if places is None:
            evaluator = Evaluator(columns, self._read, self._search, self._annotations.all())
            places = evaluator.order(evaluator.rows(node), field, descending=descending).astype(np.int32)
            self._keep(columns, key, places)
        return columns, places

    def groups(self, filter_text: str, sort: str, offset: int, limit: int) -> tuple[list[int], list[int], int]:
        """(id of the first row of each group that has one, how many of the group pass, how many groups there are in
        all), in the order of these rows. Raises FilterError."""
        columns, places = self.rows(filter_text, sort)
        of_rows = columns.column("global_group")[places]
        _, first, passing = np.unique(of_rows, return_index=True, return_counts=True)
        order = np.argsort(first)[offset : offset + limit]
        ids = columns.row_ids(places[first[order]].astype(np.int64))
        return ids, passing[order].tolist(), len(first)

    def forget(self) -> None:
        """After the rollouts in the index changed."""
        with self._lock:
            self._columns = None
            self._results.clear()

    def forget_texts(self) -> None:
        """After the index was made anew."""
        self._search.forget()

    def _keep(self, columns: Columns, key: _Key, places: NDArray[np.int32]) -> None:
        with self._lock:
            if columns is self._columns:
                self._results[key] = places
            while len(self._results) > _KEPT_RESULTS:
                self._results.popitem(last=False)
