"""What a large run costs the server: with 20 000 rollouts that everything is right, with a million that it is fast
enough. Asked over HTTP, of `shoal dashboard` in a process of its own."""

import gzip
import http.client
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil
import pytest

from tests.browser.conftest import start_dashboard
from tests.cluster.dashboard.million_run import write_run

INDEX_S, STEP_MS, FILTER_MS, ROLLOUT_MS, RSS_MB = 120, 200, 500, 200, 300
INDEX_DEADLINE_S, PAUSE_S = 400.0, 0.5
QUERIES = (
    ("", "-max_gap"),
    ("reward<1 & gap>0.05", "-max_gap"),
    ('text~"Xylophone Zebra"', ""),
    ("therefore", "-max_gap"),
    ("e", "-entropy"),
    ("text!~therefore & reward=1", "reward"),
    ('text~"the answer is" | correct', "-step"),
    ("question~7", "question"),
    ("answer~4", "answer"),
    ("uid~00 & !correct", "uid"),
    ("pass_rate=0", "-step"),
    ("reward.math=1", "worker"),
    ("!(zzzz | lag>0)", "-length"),
)


class Asker:
    """Asks the dashboard for addresses of one run, as a browser does: on one connection, compressed."""

    def __init__(self, origin: str, run: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(origin).netloc, timeout=60)
        self._base = f"/api/runs/{run}"
        self.milliseconds: dict[str, float] = {}
        """Address -> until all of the answer was here."""

    def ask(self, path: str) -> Any:
        """The JSON of an answer that must be there."""
        started_s = time.perf_counter()
        self._connection.request("GET", self._base + path, headers={"Accept-Encoding": "gzip"})
        response = self._connection.getresponse()
        body = response.read()
        self.milliseconds[path] = (time.perf_counter() - started_s) * 1000
        plain = gzip.decompress(body) if response.headers["content-encoding"] == "gzip" else body
        assert response.status == 200, (path, plain)
        return json.loads(plain)


def measure(folder: Path, num_rollouts: int, *, times: int) -> dict[str, float]:
    """Looks so many times, as other processes may hold the processors at the moment of one. Returns the seconds of the
    first index, the slowest page of each kind, each page at its best, and the most memory."""
    looks = [look(folder, num_rollouts) for _ in range(times)]
    for path in looks[0][1]:
        print(f"{path:75} {min(pages[path] for _, pages in looks):8.1f} ms")
    slowest = {
        kind: max(min(pages[path] for _, pages in looks) for path in looks[0][1] if path.startswith(start))
        for kind, start in {"step_ms": "/steps/", "filter_ms": "/rollouts?", "rollout_ms": "/rollouts/"}.items()
    }
    figures = {"index_s": looks[0][0]["index_s"], **slowest, "rss_mb": max(about["rss_mb"] for about, _ in looks)}
    print(json.dumps(figures))
    return figures


def look(folder: Path, num_rollouts: int) -> tuple[dict[str, float], dict[str, float]]:
    """Starts a dashboard for the run `folder`/run, waits for the index, asks, and checks what is counted. Returns
    (seconds until the index was ready and memory in the end, milliseconds of each page)."""
    started_s = time.perf_counter()
    dashboard = start_dashboard(folder, folder / "dashboard.log")
    try:
        asker = Asker(dashboard.origin, "run")
        while not (frame := asker.ask(""))["index"]["ready"]:
            assert time.perf_counter() - started_s < INDEX_DEADLINE_S, frame["index"]
            time.sleep(PAUSE_S)
        index_s = time.perf_counter() - started_s
        assert (frame["info"]["num_rollouts"], frame["problems"]) == (num_rollouts, [])
        ask_everything(asker, num_rollouts)
        rss_mb = psutil.Process(dashboard.process.pid).memory_info().rss / 1e6
    finally:
        dashboard.stop()
    return {"index_s": index_s, "rss_mb": rss_mb}, asker.milliseconds


def ask_everything(asker: Asker, num_rollouts: int) -> None:
    """Every kind of page that gets slower with the size of a run, and what they must say."""
    steps = asker.ask("/steps")["steps"]
    pages = [asker.ask(f"/steps/train/{step}") for step in (0, steps[len(steps) // 2], steps[-2])]
    assert sum(len(group["cells"]) for group in pages[-1]["groups"]) == 512
    tables = [asker.ask(f"/rollouts?filter={quote(text)}&sort={quote(sort)}") for text, sort in QUERIES]
    totals = dict(zip(QUERIES, (page["total"] for page in tables), strict=True))
    assert totals["", "-max_gap"] == totals["e", "-entropy"] == totals["!(zzzz | lag>0)", "-length"] == num_rollouts
    assert 0.45 < totals["therefore", "-max_gap"] / num_rollouts < 0.55
    gaps = [row["max_gap"] for row in tables[0]["rows"]]
    assert gaps == sorted(gaps, reverse=True)
    for row in (tables[0]["rows"][0], tables[-1]["rows"][99]):
        address = "/".join(quote(str(row[name])) for name in ("phase", "step", "group_id", "sample_index"))
        rollout = asker.ask(f"/rollouts/{address}")
        assert len(rollout["tokens"]["ids"]) == row["length"] > 0
        assert rollout["text"].startswith(row["preview"])
    assert all(check["ok"] for check in asker.ask("/ledger")["checks"])
    for path in ("/overview", "/doctor", "/fleet", "/timeline"):
        asker.ask(path)


def test_twenty_thousand_rollouts(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 20_000)
    measure(tmp_path, 20_000, times=1)


@pytest.mark.slow
def test_a_million_rollouts(tmp_path: Path) -> None:
    write_run(tmp_path / "run", 1_000_000)
    figures = measure(tmp_path, 1_000_000, times=3)
    assert figures["index_s"] < INDEX_S
    assert figures["step_ms"] < STEP_MS
    assert figures["filter_ms"] < FILTER_MS
    assert figures["rollout_ms"] < ROLLOUT_MS
    assert figures["rss_mb"] < RSS_MB
