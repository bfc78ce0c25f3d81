"""The server: every address of the API over HTTP, what changes while a run goes on, and what it refuses."""

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from cluster.dashboard.web.address import listening_socket
from cluster.dashboard.web.changes import Change, Listener
from rollout.errors import ConfigError
from tests.cluster.dashboard.served import Served, serving, wait_until
from tests.cluster.dashboard.small_runs import write_run, write_step

DEADLINE_S = 10.0
"""Where other tests may be running beside."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder / "one")
    write_run(folder / "two", num_steps=2)
    with serving([folder]) as server:
        yield server


@pytest.fixture(scope="module")
def group(served: Served) -> dict[str, object]:
    page: dict[str, list[dict[str, object]]] = served.get("/api/runs/one/steps/train/1")
    return page["groups"][0]


def test_runs_and_frame(served: Served) -> None:
    runs = served.get("/api/runs")["runs"]
    assert sorted((info["run"], info["step"], info["status"]) for info in runs) == [
        ("one", 3, "finished"),
        ("two", 2, "finished"),
    ]
    frame = served.get("/api/runs/one")
    assert frame["info"]["num_rollouts"] == 3 * 2 * 4 + 2 * 4  # the steps' and the two evaluations' completions
    assert frame["index"] | {"rows": 0} == {"files_done": 5, "files_total": 5, "rows": 0, "ready": True}
    assert frame["scrubber"]["steps"] == [0, 1, 2]
    assert [mark["step"] for mark in frame["scrubber"]["marks"] if mark["kind"] == "eval"] == [0, 3]
    assert set(frame["doctor"]) == {"error", "warning", "info"}


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("overview?points=10", "tiles"),
        ("overview?from=1&to=2", "charts"),
        ("metrics?names=reward/mean&points=2", "series"),
        ("steps", "steps"),
        ("steps?phase=eval", "steps"),
        ("steps/train/0", "groups"),
        ("steps/eval/3", "groups"),
        ("rollouts?filter=correct&sort=-length&limit=3", "rows"),
        ("timeline?limit=10", "lanes"),
        ("spans/0", "ids"),
        ("trace.json", "traceEvents"),
        ("fleet", "actors"),
        ("ledger", "counts"),
        ("ledger/groups?offset=1&limit=2", "groups"),
        ("doctor", "findings"),
        ("config", "yaml"),
    ],
)
def test_every_address_of_a_run_answers(served: Served, path: str, key: str) -> None:
    assert key in served.get(f"/api/runs/one/{path}")


def test_group_rollout_prompt_views_compare(served: Served, group: dict[str, object]) -> None:
    address = f"train/1/{group['group_id']}"
    assert len(served.get(f"/api/runs/one/groups/{address}")["rollouts"]) == 4
    assert len(served.get(f"/api/runs/one/rollouts/{address}/2")["tokens"]["ids"]) == 4
    assert served.get(f"/api/runs/one/prompts/{group['uid']}")["uid"] == group["uid"]
    assert "grader disagreed" in [view["name"] for view in served.get("/api/views")["views"]]
    assert [info["run"] for info in served.get("/api/compare?runs=two,one")["runs"]] == ["two", "one"]


def test_page_names_only_files_that_there_are(served: Served) -> None:
    page = served.ask("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    names = [part.split('"')[0] for part in page.body.decode().split('"./static/')[1:] if part.split('"')[0]]
    assert "app.js" in names
    assert "vendor/uPlot.mjs" in names
    for name in names:
        reply = served.ask(f"/static/{name}")
        assert (reply.status, reply.headers["x-content-type-options"]) == (200, "nosniff"), name
        assert reply.headers["content-type"].startswith("text/css" if name.endswith(".css") else "text/javascript")


def test_an_answer_that_did_not_change_is_not_sent_again(served: Served) -> None:
    for target in ("/api/runs/one/overview", "/api/compare?runs=one,two", "/static/app.js"):
        first = served.ask(target)
        again = served.ask(target, If_None_Match=first.headers["etag"])
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])
        assert served.ask(target, If_None_Match='"other"').status == 200


def test_long_answers_are_compressed_and_the_stream_is_not(served: Served) -> None:
    assert served.ask("/api/runs/one/overview", Accept_Encoding="gzip").headers["content-encoding"] == "gzip"
    assert "content-encoding" not in served.ask("/api/views/nothing", Accept_Encoding="gzip").headers
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as plain:
        plain.sendall(b"GET /api/stream HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n")
        head = plain.recv(4096).lower()
    assert b"text/event-stream" in head
    assert b"gzip" not in head


def test_a_step_reaches_the_page_while_the_run_goes_on(tmp_path: Path) -> None:
    run = write_run(tmp_path / "live", num_steps=1, finished=False)
    with serving([tmp_path]) as served, served.events("/api/stream?run=live") as events:
        first = next(events)
        assert (first["run"], first["step"], first["changed"]) == ("live", 1, [])
        before = served.ask("/api/runs/live/overview")
        started = time.monotonic()
        write_step(run, 1)
        seen: set[str] = set()
        for event in events:
            seen |= set(event["changed"])
            if event["step"] == 2 and {"metrics", "rollouts", "ledger"} <= seen:
                break
        assert time.monotonic() - started < DEADLINE_S
        assert int(event["id"]) == event["revision"] > int(first["id"])
        after = served.ask("/api/runs/live/overview", If_None_Match=before.headers["etag"])
        assert (after.status, after.json()["x"]["step"]) == (200, [0, 1])
        with served.events("/api/stream?run=live", Last_Event_ID=first["id"]) as later:
            assert "metrics" in next(later)["changed"]  # what it missed while it was away


def test_all_runs_can_be_listened_to_and_new_ones_are_found(tmp_path: Path) -> None:
    write_run(tmp_path / "old")
    with serving([tmp_path]) as served, served.events() as events:
        # The first search is the state that later ones are compared with.
        wait_until(lambda: served.follower._info_seen is not None, "the first search is over")
        write_run(tmp_path / "new", num_steps=2, finished=False)
        event = next(events)
        assert (event["run"], event["event"]) == ("new", "change")
        assert {info["run"] for info in served.get("/api/runs")["runs"]} == {"old", "new"}


def test_another_run_of_the_same_name_is_another_answer(tmp_path: Path) -> None:
    with serving([tmp_path]) as served:
        tags = []
        for steps in (3, 2):
            write_run(tmp_path / "one", num_steps=steps)
            wait_until(lambda: served.ask("/api/runs/one").status == 200, "the run is found")
            tags.append(served.ask("/api/runs/one/overview").headers["etag"])
            shutil.rmtree(tmp_path / "one")
            wait_until(lambda: not served.follower.opened("one"), "its store is closed")
            assert not (tmp_path / "one").exists()
        assert tags[0] != tags[1]


def test_the_trace_is_sent_in_parts_and_lets_the_run_go(served: Served) -> None:
    reply = served.ask("/api/runs/one/trace.json")
    assert reply.headers["transfer-encoding"] == "chunked"
    assert sum(event["ph"] == "X" for event in reply.json()["traceEvents"]) == 3 * 6
    again = served.ask("/api/runs/one/trace.json", If_None_Match=reply.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    with served.follower.use("one") as run:
        wait_until(lambda: run.users == 1, "nobody but this test uses the run")


def test_a_client_that_reads_nothing_holds_one_change_for_a_run_and_is_forgotten_when_it_goes(tmp_path: Path) -> None:
    listener = Listener(None, lambda: None)
    for revision in range(10_000):
        name = frozenset({"metrics" if revision % 2 else "events"})
        listener.put(Change(run=f"run-{revision % 3}", revision=revision, step=revision, status="live", changed=name))
    changes = listener.take()
    assert sorted((change.run, change.revision) for change in changes) == [
        ("run-0", 9999),
        ("run-1", 9997),
        ("run-2", 9998),
    ]
    assert changes[0].changed == {"metrics", "events"}
    assert listener.take() == []
    write_run(tmp_path / "one")
    with serving([tmp_path]) as served:
        with served.events():
            wait_until(lambda: served.follower.num_listeners() == 1, "the listener is known")
        wait_until(lambda: served.follower.num_listeners() == 0, "it is forgotten")


def test_a_slow_answer_does_not_keep_others_waiting(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster.dashboard.web import endpoints

    released = threading.Event()
    slow = endpoints.Endpoint(parts=("slow",), parameters=(), view=lambda *_: {"waited": released.wait(20)})
    monkeypatch.setattr(endpoints, "ENDPOINTS", (*endpoints.ENDPOINTS, slow))
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(served.ask("/api/runs/one/slow").status)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    assert served.get("/api/runs/one/steps")["steps"] == [0, 1, 2]
    assert time.monotonic() - started < DEADLINE_S
    released.set()
    for thread in threads:
        thread.join(10)
    assert results == [200] * 4


def test_text_that_is_no_unicode_is_served(served: Served) -> None:
    from cluster.dashboard.files.encoding import encode

    data = encode({"text": "\ud800\0\u202e", "value": float("nan"), "list": [float("inf"), 1.5]})
    assert data == b'{"text":"\\ud800\\u0000\\u202e","value":null,"list":[null,1.5]}'
    assert json.loads(data)["text"] == "\ud800\0\u202e"


TRAVERSALS = (
    "..",
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e%2f",
    "%00",
    "a%00b",
    "....//",
    "%5c..%5c",
    "~root",
    "%ff%fe",
)


@pytest.mark.parametrize("part", [*TRAVERSALS, "x" * 5000, quote("'; drop table rows; --"), "%F0%9F%92%A9"])
def test_nothing_in_a_path_reaches_the_file_system(served: Served, part: str) -> None:
    templates = (
        "/static/{}",
        "/static/vendor/{}",
        "/api/{}",
        "/api/runs/{}",
        "/api/runs/{}/overview",
        "/api/runs/one/{}",
        "/api/runs/one/steps/{}/0",
        "/api/runs/one/steps/train/{}",
        "/api/runs/one/groups/train/0/{}",
        "/api/runs/one/rollouts/train/0/{}/0",
        "/api/runs/one/rollouts/train/0/x/{}",
        "/api/runs/one/spans/{}",
        "/api/runs/one/prompts/{}",
        "/api/compare?runs={}",
        "/api/stream?run={}",
    )
    for template in templates:
        reply = served.ask(template.format(part))
        assert reply.status in (400, 404), (template, reply.status, reply.body[:200])
        sentence = reply.json()["error"]
        assert len(sentence) < 400
        assert "Traceback" not in sentence
        assert "root:" not in sentence


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("rollouts?limit=1000000", "limit is '1000000', allowed: a whole number from 1 to 1000"),
        ("rollouts?limit=0", "limit is '0', allowed: a whole number from 1 to 1000"),
        ("rollouts?offset=-1", "offset is '-1', allowed: a whole number from 0 to 1000000000"),
        ("rollouts?limit=1e2", "limit is '1e2', allowed: a whole number from 1 to 1000"),
        ("rollouts?limit=1_0", "limit is '1_0', allowed: a whole number from 1 to 1000"),
        ("rollouts?limit=%D9%A1", "limit is '\\u0661', allowed: a whole number from 1 to 1000"),
        ("rollouts?limit=5&limit=6", "the parameter limit was given twice"),
        ("rollouts?select=1", "there is no parameter 'select' here; there are: filter, limit, offset, sort"),
        ("rollouts?filter=" + "a" * 4001, "the parameter filter has 4001 characters, allowed: 4000"),
        ("overview?points=nan", "points is 'nan', allowed: a whole number from 1 to 5000"),
        ("overview?from=1.5", "from is '1.5', allowed: a whole number from 0 to 1000000000000"),
        ("timeline?from=inf", "from is 'inf', allowed: a time in seconds"),
        ("timeline?from=5&to=4", "from is 5.0 and to is 4.0, allowed: from before to"),
        ("steps?phase=test", "the phase is 'test', allowed: train, eval"),
        ("steps/train/-1", "the step is '-1', allowed: a whole number from 0 to 1000000000000"),
        (
            "steps/train/" + "9" * 4000,
            "the step is '" + "9" * 80 + "...', allowed: a whole number from 0 to 1000000000000",
        ),
        (
            "ledger/groups?limit=99999999999999999999",
            "limit is '99999999999999999999', allowed: a whole number from 1 to 5000",
        ),
    ],
)
def test_a_malformed_parameter_is_refused_with_what_is_allowed(served: Served, target: str, sentence: str) -> None:
    reply = served.ask(f"/api/runs/one/{target}")
    assert (reply.status, reply.json()) == (400, {"error": sentence})


def test_a_filter_that_does_not_parse_says_where(served: Served) -> None:
    reply = served.ask("/api/runs/one/rollouts?filter=" + quote("reward<"))
    assert reply.status == 400
    assert "character" in reply.json()["error"]


def test_what_is_not_there_is_404(served: Served) -> None:
    for target in (
        "/api/runs/three",
        "/api/runs/one/steps/train/9",
        "/api/runs/one/spans/99999",
        "/favicon.ico",
        "/api",
    ):
        reply = served.ask(target)
        assert reply.status == 404, target
        assert reply.json()["error"], target
    assert served.ask("/api/compare?runs=one,nothing").status == 404
    assert served.ask("/api/compare?runs=" + ",".join(map(str, range(9)))).json() == {
        "error": "runs has 9 entries, allowed: 8"
    }


def test_a_run_that_cannot_be_opened_is_an_error_of_its_own(tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "metrics.jsonl").write_text("no json\n{\n")
    (bad / "config.yaml").write_text(": [")
    with serving([tmp_path]) as served:
        frame = served.get("/api/runs/bad")
        assert frame["info"]["step"] == 0
        assert {problem["file"] for problem in frame["problems"]} >= {"metrics.jsonl", "config.yaml"}
        assert served.get("/api/runs/good")["info"]["step"] == 3


def test_a_port_in_use_is_one_sentence() -> None:
    with listening_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is in use"):
            listening_socket("127.0.0.1", port)
    with pytest.raises(ConfigError, match=r"there is no address no\.such\.host\.invalid"):
        listening_socket("no.such.host.invalid", 0)
