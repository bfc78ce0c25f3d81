"""Raw rows of JSON lines. A line that is no row is yielded with its problem; a file that cannot be read is an error.

A file that is one JSON list of objects is read too: many data sets are kept so.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from rollout.errors import DataError
from rollout.prompts.raw_rows import BadRow, RawRow

MAX_LINE_BYTES = 16 * 2**20
"""A longer line is no row: it is a file without line breaks, or an archive; reading on would fill the memory."""
MAX_LIST_BYTES = 2**30
"""A longer list of objects is not read: all of it is in memory at once, several times."""
BOM = b"\xef\xbb\xbf"

OTHER_FORMS = (
    (b"\x1f\x8b", "compressed with gzip; unpack it (gunzip)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it (zstd -d)"),
    (b"BZh", "compressed with bzip2; unpack it (bunzip2)"),
    (b"\xfd7zXZ", "compressed with xz; unpack it (unxz)"),
    (b"PK\x03\x04", "a ZIP archive (or a spreadsheet); unpack it, or save its rows as JSON lines"),
    (b"PAR1", "a Parquet file; set task.kind to parquet"),
    (b"ARROW1", "an Arrow file; save it as Parquet and set task.kind to parquet"),
    (b"\xff\xfe", "text in UTF-16; save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16; save it as UTF-8"),
)
"""How other kinds of files begin, and what to do about them."""


def read_jsonl(path: Path) -> Iterator[RawRow]:
    """One row for each line that is not blank, or for each object of a list. A byte-order mark that starts the file is
    no part of the first row. Raises DataError for a file that is something else."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    with closing(stream):
        start = stream.read(4096)
        other = next((what for mark, what in OTHER_FORMS if start.startswith(mark)), None)
        if other is not None:
            raise DataError(f"{path} holds no JSON lines: it is {other}")
        if path.suffix.lower() in (".csv", ".tsv") and not start.removeprefix(BOM).lstrip().startswith((b"{", b"[")):
            raise DataError(
                f"{path} holds no JSON lines: it is a table of comma- or tab-separated values; save it as JSON lines, "
                "or as Parquet with task.kind=parquet"
            )
        if start.removeprefix(BOM).lstrip().split(b"\n", 1)[0].strip() == b"{":
            raise DataError(
                f"{path} holds no JSON lines: its first object goes over several lines; write each row on one line "
                "(jq -c . does), or all rows as one JSON list"
            )
        stream.seek(0)
        if _begins_a_list(start):
            yield from _read_list(path, stream.read(MAX_LIST_BYTES + 1))
        else:
            yield from _read_lines(path, stream)


def _begins_a_list(start: bytes) -> bool:
    """Whether a file is a list of objects: a line that is a list of something else is a malformed row."""
    text = start.removeprefix(BOM).lstrip()
    return text.startswith(b"[") and text[1:].lstrip().startswith(b"{")


def _read_list(path: Path, data: bytes) -> Iterator[RawRow]:
    if len(data) > MAX_LIST_BYTES:
        raise DataError(
            f"{path} is one JSON list of more than {MAX_LIST_BYTES // 2**20} MiB; save it as JSON lines (jq -c '.[]')"
        )
    try:
        values = json.loads(data.removeprefix(BOM).decode(), parse_constant=_refuse_constant, object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        place = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise DataError(f"{path} is no text in UTF-8 ({place}); save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path}, {place}: this is no valid JSON list, {error.msg}; mend it") from error
    except (ValueError, RecursionError) as error:  # NaN, a key twice, nested too deeply
        raise DataError(f"{path} is no valid JSON list: {error}; mend it, or save it as JSON lines") from error
    for number, value in enumerate(values, start=1):
        yield _row(value, f"{path}:{number}", "the row")


def _read_lines(path: Path, stream: Any) -> Iterator[RawRow]:
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        source = f"{path}:{number}"
        if len(line) > MAX_LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_LINE_BYTES)
            detail = f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB; is this a JSON-lines file?"
            yield RawRow(source=source, problem=BadRow("line too long", detail))
            continue
        if number == 1:
            line = line.removeprefix(BOM)
        line = line.rstrip(b"\r\n")  # else a line that breaks off would be told as column 1 of the next one
        if line.strip():
            yield _parse_line(line, source)


def _parse_line(line: bytes, source: str) -> RawRow:
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        detail = f"byte 0x{line[error.start]:02x} at offset {error.start} is not UTF-8; save the file as UTF-8"
        return RawRow(source=source, problem=BadRow("not UTF-8", detail))
    except json.JSONDecodeError as error:
        return RawRow(
            source=source, problem=BadRow("invalid JSON", f"invalid JSON, {error.msg} (column {error.colno})")
        )
    except ValueError as error:  # NaN, a key twice, or an integer of thousands of digits
        return RawRow(source=source, problem=BadRow("invalid JSON", f"invalid JSON, {error}"))
    except RecursionError:
        return RawRow(source=source, problem=BadRow("invalid JSON", "the JSON is nested too deeply"))
    return _row(value, source, "the line")


def _row(value: object, source: str, what: str) -> RawRow:
    if not isinstance(value, dict):
        detail = f"{what} holds a JSON {type(value).__name__}, expected an object with columns"
        return RawRow(source=source, problem=BadRow("not an object", detail))
    return RawRow(source=source, columns=value)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; of a key that comes twice Python would keep the last value without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} comes twice")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
