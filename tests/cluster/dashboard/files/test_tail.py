"""Append-only files are read in whole lines, whatever happens to them."""

import json
import os
from pathlib import Path

import pytest

from cluster.dashboard.files.tail import Line, TailState, changed, read_batches, was_rewritten


def read(path: Path, state: TailState) -> tuple[list[Line], TailState]:
    lines: list[Line] = []
    for batch in read_batches(path, state):
        lines += batch.lines
        state = batch.state
    return lines, state


def test_a_torn_last_line_waits_for_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a":1}\n{"a":')
    lines, state = read(path, TailState())
    assert [line.record for line in lines] == [{"a": 1}]
    assert (state.offset, state.lines) == (8, 1)
    with path.open("a") as file:
        file.write('2}\n{"a":3}\n')
    assert not was_rewritten(path, state)
    lines, state = read(path, state)
    assert [(line.number, line.offset, line.record) for line in lines] == [(1, 8, {"a": 2}), (2, 16, {"a": 3})]
    assert not changed(path, state)


@pytest.mark.parametrize("broken", ["{", "[1]", '"x"', "\x00\x01", "[" * 100_000, "{}\r{}", ""])
def test_a_broken_line_in_the_middle_is_named_and_passed_over(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a":1}\n' + broken.encode() + b'\n{"a":2}\n')
    lines, state = read(path, TailState())
    assert [line.record for line in lines] == [{"a": 1}, None, {"a": 2}]
    assert "line 2 is no JSON" in lines[1].error
    assert state.offset == path.stat().st_size


def test_more_than_one_part(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    records = [{"n": n, "text": "x" * (3_000_000 if n == 5 else 100_000)} for n in range(30)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    batches = list(read_batches(path, TailState()))
    assert len(batches) > 3
    assert [line.record for batch in batches for line in batch.lines] == records
    assert batches[-1].state.lines == 30


def test_rewritten_files_are_known(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a":1}\n{"a":2}\n')
    _, state = read(path, TailState())
    assert not was_rewritten(path, state)
    path.write_text('{"a":7}\n{"a":8}\n{"a":9}\n')  # the same inode, longer, other bytes
    assert was_rewritten(path, state)
    path.write_text('{"a":1}\n')  # shorter
    assert was_rewritten(path, state)
    path.unlink()
    assert changed(path, state)
    assert was_rewritten(path, state)


def test_links_and_pipes_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('{"a":1}\n')
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError, match=r"symbolic links|plain file"):
            read(tmp_path / name, TailState())
