"""Records -> the bytes of a file, a part at a time: JSON lines, CSV or Parquet."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

from cluster.columns import ROLLOUT_COLUMNS
from cluster.dashboard.files.encoding import encode, no_formula

Format = Literal["jsonl", "csv", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
MEDIA_TYPES: Mapping[Format, str] = {
    "jsonl": "application/jsonl",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
_CHUNK_ROWS, _CHUNK_SIZE = 512, 1 << 20
"""Rows that are held at once, and characters and tokens of them: a row that begins below it is taken whole."""

Records = Iterable[Mapping[str, Any]]


def write_records(records: Records, columns: Mapping[str, str], format: Format) -> Iterator[bytes]:
    """The whole file in parts."""
    return {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}[format](records, columns)


def _jsonl(records: Records, columns: Mapping[str, str]) -> Iterator[bytes]:
    for chunk in _chunks(records):
        yield b"".join(encode({name: record[name] for name in columns}) + b"\n" for record in chunk)


def _csv(records: Records, columns: Mapping[str, str]) -> Iterator[bytes]:
    """Absent is empty, lists and mappings are JSON, a ' stands before what a spreadsheet would compute."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for chunk in _chunks(records):
        writer.writerows([_cell(record[name]) for name in columns] for record in chunk)
        yield text.getvalue().encode("utf-8", "backslashreplace")
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()  # the names, where there was no record


def _parquet(records: Records, columns: Mapping[str, str]) -> Iterator[bytes]:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(name, arrow_type(kind)) for name, kind in columns.items()])
    sink = io.BytesIO()
    with pyarrow.parquet.ParquetWriter(_Forward(sink), schema, compression="zstd") as writer:
        for chunk in _chunks(records):
            rows = [{name: _parquet_value(record[name], columns[name]) for name in columns} for record in chunk]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            yield _taken(sink)
    yield _taken(sink)


def arrow_type(kind: str) -> Any:
    """The Arrow type of a column's kind."""
    import pyarrow

    if kind == "turns":
        return pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]))
    if kind.startswith("list<"):
        return pyarrow.list_(arrow_type(kind[5:-1]))
    return pyarrow.type_for_alias(kind)


class _Forward(io.RawIOBase):
    """A file that is written from its beginning to its end: what was taken out before counts in its place."""

    def __init__(self, sink: io.BytesIO) -> None:
        self._sink = sink
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        num_bytes = self._sink.write(data)
        self._at += num_bytes
        return num_bytes

    def tell(self) -> int:
        return self._at


def _taken(sink: io.BytesIO) -> bytes:
    data = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return data


def _chunks(records: Records) -> Iterator[list[Mapping[str, Any]]]:
    chunk, size = [], 0
    for record in records:
        chunk.append(record)
        size += sum(map(_size, record.values()))
        if len(chunk) == _CHUNK_ROWS or size >= _CHUNK_SIZE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _size(value: Any) -> int:
    """Characters, tokens and other values that it holds. A list is of one kind, as a column of the run's own is."""
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    if isinstance(value, list | tuple) and value and isinstance(value[0], str | list | tuple | Mapping):
        return sum(map(_size, value))
    return len(value) if isinstance(value, str | list | tuple) else 1


def _parquet_value(value: Any, kind: str) -> Any:
    """Mappings and spans are text in a table, as they are in the run's own."""
    return encode(value).decode() if kind == ROLLOUT_COLUMNS["components"] and isinstance(value, dict | list) else value


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return encode(value).decode()
    return no_formula(value) if isinstance(value, str) else value
