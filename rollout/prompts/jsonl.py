"""Raw rows of JSON lines. A line that is no row is yielded with its problem; a file that cannot be read is an error."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from rollout.errors import DataError
from rollout.prompts.raw_rows import BadRow, RawRow

MAX_LINE_BYTES = 16 * 2**20
"""A longer line is no row: it is a file without line breaks, or an archive; reading on would fill the memory."""


def read_jsonl(path: Path) -> Iterator[RawRow]:
    """One row for each line that is not blank. A byte-order mark that starts the file is no part of the first row."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    with closing(stream):
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
                line = line.removeprefix(b"\xef\xbb\xbf")
            line = line.rstrip(b"\r\n")  # else a line that breaks off would be told as column 1 of the next one
            if line.strip():
                yield _parse_line(line, source)


def _parse_line(line: bytes, source: str) -> RawRow:
    try:
        value = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        detail = f"byte 0x{line[error.start]:02x} at offset {error.start} is not UTF-8; save the file as UTF-8"
        return RawRow(source=source, problem=BadRow("not UTF-8", detail))
    except json.JSONDecodeError as error:
        return RawRow(
            source=source, problem=BadRow("invalid JSON", f"invalid JSON, {error.msg} (column {error.colno})")
        )
    except ValueError as error:  # NaN, or an integer of thousands of digits
        return RawRow(source=source, problem=BadRow("invalid JSON", f"invalid JSON, {error}"))
    except RecursionError:
        return RawRow(source=source, problem=BadRow("invalid JSON", "the JSON is nested too deeply"))
    if not isinstance(value, dict):
        detail = f"the line holds a JSON {type(value).__name__}, expected an object with columns"
        return RawRow(source=source, problem=BadRow("not an object", detail))
    return RawRow(source=source, columns=value)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
