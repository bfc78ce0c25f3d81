"""Labels, notes and bookmarks: kept, found by filters, and written by nobody who may not."""

import http.client
import json
import math
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster import cli
from cluster.dashboard.files import annotations
from cluster.dashboard.files.annotations import Annotation, AnnotationError, AnnotationFile, address_of
from cluster.dashboard.index.store import RunStore
from cluster.dashboard.web import server
from cluster.dashboard.web.security import access_for
from cluster.record.run_directory import RunDirectory
from tests.cluster.dashboard.served import Served, serving
from tests.cluster.dashboard.small_run import address, make_run


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return make_run(tmp_path / "runs" / "a")


@pytest.fixture
def store(run: RunDirectory) -> Iterator[RunStore]:
    store = RunStore(run.path)
    store.refresh()
    yield store
    store.close()


def found(store: RunStore, filter_text: str) -> list[tuple[int, str, int]]:
    return [(row.step, row.group_id[:6], row.sample_index) for row in store.query(filter_text, "", 0, 100).rows]


def test_filters_know_what_was_noted(store: RunStore) -> None:
    store.annotations.write(address(2, 1), 0, Annotation(label="lucky", note="guessed The answer"))
    store.annotations.write(address(3, 1), 2, Annotation(label="Luck", bookmarked=True))
    store.annotations.write(address(0, 0), 1, Annotation(bookmarked=True))
    store.annotations.write(address(99, 7), 0, Annotation(label="lucky"))  # taken back by a resume
    one, two, three = (1, "000002", 0), (1, "000003", 2), (0, "000000", 1)
    assert found(store, "label=lucky") == [one]
    assert found(store, "label~luck") == [one, two]
    assert found(store, 'note~"the ANSWER"') == [one]
    assert found(store, "bookmarked") == [three, two]
    assert found(store, "bookmarked & label!=none") == [two]
    assert len(found(store, "label=none")) == 21 - 2
    assert len(found(store, "!bookmarked")) == 21 - 2
    assert store.refresh() >= {"annotations"}
    assert "annotations" not in store.refresh()


def test_the_last_line_counts_and_broken_ones_are_left_out(run: RunDirectory) -> None:
    file = AnnotationFile(run.path)
    assert file.all() == {}
    file.write(address(2, 1), 0, Annotation(label="a", bookmarked=True))
    file.write(address(2, 1), 1, Annotation(note="n"))
    with (run.path / "annotations.jsonl").open("a") as out:
        out.write('no json\n[]\n{"phase": "train"}\n{"phase": "train", "step": 1, "group_id": "g", "sample_index": 0, ')
        out.write(f'"label": "{"x" * 101}"}}\n')
    file.write(address(2, 1), 0, Annotation(label="b"))
    file.write(address(2, 1), 1, Annotation())
    with (run.path / "annotations.jsonl").open("a") as out:
        out.write('{"torn')
    assert file.of(address(2, 1), 0) == Annotation(label="b")
    assert list(file.all().values()) == [Annotation(label="b")]
    with pytest.raises(AnnotationError, match="the label has 101 characters, allowed: 100"):
        Annotation(label="x" * 101)


def test_a_torn_last_line_takes_no_other_with_it(run: RunDirectory) -> None:
    path, file = run.path / "annotations.jsonl", AnnotationFile(run.path)
    file.write(address(2, 1), 0, Annotation(label="a"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    file.write(address(2, 1), 1, Annotation(label="b"))
    file.write(address(2, 1), 2, Annotation(label="c"))
    assert [noted.label for noted in file.all().values()] == ["a", "b", "c"]
    assert len(path.read_bytes().splitlines()) == 4


def test_lines_of_others_that_no_index_can_look_for_are_left_out(store: RunStore) -> None:
    store.annotations.write(address(2, 1), 0, Annotation(label="a"))
    fine: dict[str, Any] = {"phase": "train", "step": 1, "group_id": "g", "sample_index": 0, "bookmarked": True}
    wrong: list[tuple[str, Any]] = [
        ("step", math.inf),
        ("step", 10**20),
        ("step", -1),
        ("sample_index", 10**20),
        ("sample_index", math.nan),
    ]
    wrong += [("group_id", "\ud800"), ("phase", "other")]
    with (store.path / "annotations.jsonl").open("a") as out:
        out.writelines(json.dumps(fine | {name: value}) + "\n" for name, value in wrong)
    assert len(store.annotations.all()) == 1
    assert found(store, "label=a") == [(1, "000002", 0)]
    assert found(store, "bookmarked") == []


def test_a_file_never_becomes_too_long_to_be_read(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotations, "MAX_FILE_BYTES", annotations.MAX_LINE_BYTES + 1000)
    file, longest = AnnotationFile(run.path), Annotation(label="\U0001f600" * 100, note="\U0001f600" * 4000)
    file.write(address(2, 1), 0, Annotation(label="a"))
    file.write(address(2, 1), 1, longest)
    with pytest.raises(AnnotationError, match=r"bytes, allowed before another line: 1000; of several"):
        file.write(address(2, 1), 2, Annotation(label="b"))
    assert [noted.label for noted in file.all().values()] == ["a", longest.label]


def test_a_link_is_neither_read_nor_written_through(run: RunDirectory, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("kept\n")
    (run.path / "annotations.jsonl").symlink_to(outside)
    file = AnnotationFile(run.path)
    with pytest.raises(AnnotationError, match="is a link"):
        file.write(address(2, 1), 0, Annotation(bookmarked=True))
    assert outside.read_text() == "kept\n"
    assert file.all() == {}


def test_the_command(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"train/1/{address(2, 1).group_id}/0"
    assert cli.main(["label", str(run.path), where, "--label", "lucky", "--note", "so\x1b[2J", "--bookmark"]) == 0
    assert capsys.readouterr().out == f"{where}: label lucky; bookmarked; note: so\\x1b[2J\n"
    assert cli.main(["label", str(run.path), where, "--note", "", "--no-bookmark"]) == 0
    assert capsys.readouterr().out == f"{where}: label lucky\n"
    assert cli.main(["rollouts", str(run.path), "--filter", "label=lucky"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 rollout"
    for wrong, sentence in [("train/1/x/0", "has no completion"), ("x", "is no address of a completion")]:
        assert cli.main(["label", str(run.path), wrong, "--bookmark"]) == 2
        assert sentence in capsys.readouterr().err
    assert address_of(where) == (address(2, 1), 0)


def post(served: Served, value: Any, *, path: str = "api/runs/a/annotations", **headers: str) -> tuple[int, Any]:
    """As the page does it; a header with an empty value is left out."""
    own = {"Content-Type": "application/json", "Origin": f"http://127.0.0.1:{served.port}"}
    sent = own | {name.replace("_", "-"): text for name, text in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    try:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        named = {name: text for name, text in sent.items() if text}
        connection.request("POST", f"/{path}", body, named)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_the_page_may_write_on_loopback_and_nobody_elses_page(run: RunDirectory, tmp_path: Path) -> None:
    where = f"train/1/{address(2, 1).group_id}/0"
    value = {"address": where, "label": " lucky ", "note": "", "bookmarked": True}
    kept = {"label": "lucky", "note": None, "bookmarked": True}
    file = AnnotationFile(run.path)
    with serving([tmp_path / "runs"]) as served:
        for refused, status in [
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Origin": "", "Sec_Fetch_Site": "cross-site"}, 403),
            ({"Content_Type": "text/plain"}, 415),
            ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
            ({"Host": "evil.example"}, 421),
        ]:
            assert post(served, value, **refused)[0] == status, refused
        for body, status in [
            (b"no json", 400),
            ([], 400),
            ({**value, "more": 1}, 400),
            ({**value, "bookmarked": "yes"}, 400),
            ({**value, "label": "x" * 101}, 400),
            ({**value, "address": "../../x"}, 400),
            ({**value, "address": "train/1/no-such/0"}, 404),
            ({**value, "address": f"train/{'9' * 12}/g/{'9' * 7}"}, 404),
            ({**value, "address": f"train/{'9' * 20}/g/0"}, 400),
            ({**value, "address": f"train/{'9' * 5000}/g/0"}, 400),
            ({**value, "address": f"train/1/g/{'9' * 20}"}, 400),
            ({**value, "address": "train/1/\ud800/0"}, 400),
            ({**value, "address": "train/\u0661/g/0"}, 400),
            ({**value, "note": "x" * 40_000}, 413),
        ]:
            answered, sentence = post(served, body)
            assert (answered, list(sentence)) == (status, ["error"]), body
        assert served.ask("/api/runs/a/annotations", method="PUT").status == 405
        assert served.ask("/api/runs/a/overview", method="POST").status == 405
        for path, status in [("api%2Fruns%2Fa/annotations", 200), ("api/runs/a%2Fb/annotations", 405)]:
            assert post(served, {**value, "label": None, "bookmarked": False}, path=path)[0] == status, path
        assert file.all() == {}
        assert post(served, value) == (200, kept)
        assert file.of(address(2, 1), 0) == Annotation(label="lucky", bookmarked=True)
        (row,) = served.get("/api/runs/a/rollouts?filter=bookmarked")["rows"]
        assert row["annotation"] == kept


def test_a_body_that_never_comes_holds_no_connection(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server, "HEADERS_S", 0.3)
    with serving([tmp_path / "runs"]) as served:
        host = f"127.0.0.1:{served.port}"
        head = f"POST /api/runs/a/annotations HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\n"
        head += "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        for leaves in (True, False):
            with socket.create_connection(("127.0.0.1", served.port), timeout=20) as waiting:
                waiting.sendall(head.encode())
                if not leaves:
                    answer = b"".join(iter(lambda: waiting.recv(4096), b""))  # until the other side closes
        status, _, body = answer.partition(b"\r\n")[0], *answer.rpartition(b"\r\n\r\n")[1:]
        assert status.split()[1] == b"408"
        assert json.loads(body) == {"error": "the request did not come within 0.3 s"}
    assert "Traceback" not in capfd.readouterr().err


def test_beyond_loopback_a_token_alone_does_not_allow_it(run: RunDirectory, tmp_path: Path) -> None:
    value = {"address": f"train/1/{address(2, 1).group_id}/0", "bookmarked": True}
    access = access_for("127.0.0.1", require_token=True)
    token = {"Authorization": f"Bearer {access.token}"}
    with serving([tmp_path / "runs"], access) as served:
        assert post(served, value)[0] == 403
        status, sentence = post(served, value, **token)
        assert (status, "--allow-writing" in sentence["error"]) == (403, True)
    with serving([tmp_path / "runs"], replace(access, allow_writing=True)) as served:
        assert post(served, value)[0] == 401
        assert post(served, value, **token)[0] == 200
    assert len(AnnotationFile(run.path).all()) == 1
