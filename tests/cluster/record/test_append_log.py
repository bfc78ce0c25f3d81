"""JSON-lines files: whole lines, valid JSON, and a clear error when the disk refuses."""

import errno
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from cluster.record.append_log import (
    RunDirectoryError,
    RunWriteError,
    append_line,
    json_line,
    read_lines,
    write_atomically,
)
from rollout.errors import ShoalError
from rollout.types import FinishReason


def test_numbers_that_json_has_not_become_null() -> None:
    record = {"a": float("nan"), "b": float("inf"), "c": -float("inf"), "d": np.float32(0.5), "e": np.int64(3)}
    assert json_line(record) == '{"a":null,"b":null,"c":null,"d":0.5,"e":3}'


def test_text_comes_back_as_it_was() -> None:
    texts = ["lone \ud800 surrogate", "\u2028 line", "new\nline\x00", "ü", "\x1b[31m"]
    line = json_line({"texts": texts, "reason": FinishReason.STOP})
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line) == {"texts": texts, "reason": "stop"}


def test_a_value_that_is_no_json_is_a_defect_not_a_string() -> None:
    with pytest.raises(TypeError, match="holds set"):
        json_line({"a": {1}})


def test_lines_are_appended_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for index in range(3):
        append_line(path, {"step": index})
    assert path.read_text() == '{"step":0}\n{"step":1}\n{"step":2}\n'
    assert list(read_lines(path)) == [{"step": 0}, {"step": 1}, {"step": 2}]


def test_each_line_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real_write = os.write

    def counting_write(descriptor: int, data: bytes) -> int:
        sizes.append(len(data))
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "write", counting_write)
    append_line(tmp_path / "log.jsonl", {"text": "x" * 100_000})
    assert sizes == [len('{"text":""}\n') + 100_000]


def test_a_torn_last_line_is_left_out_and_other_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step":0}\n{"st')
    assert list(read_lines(path)) == [{"step": 0}]
    path.write_text('{"step":0}\nnonsense\n{"step":1}\n')
    with pytest.raises(RunDirectoryError, match=r"log\.jsonl, line 2: this is no JSON"):
        list(read_lines(path))
    assert list(read_lines(tmp_path / "absent.jsonl")) == []


def test_a_full_disk_is_an_oserror_of_ours() -> None:
    with pytest.raises(RunWriteError, match=r"cannot write /dev/full: No space left on device; make room") as caught:
        append_line(Path("/dev/full"), {"step": 0})
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, ShoalError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (RunWriteError, str(caught.value))


def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    append_line(path, {"step": 0})
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, data[:4]))
    with pytest.raises(RunWriteError, match="only 4 of 11 bytes fit"):
        append_line(path, {"step": 1})
    monkeypatch.undo()
    assert path.read_text() == '{"step":0}\n'


def test_replacing_a_file_leaves_the_old_one_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunWriteError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]
