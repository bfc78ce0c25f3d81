"""`shoal export-report RUN -o FILE`: the page and a part of the API's answers in one HTML file, without network.

What goes in, most important first, until the file is full: the pages about the whole run; the first and last steps and
some between; of these steps the first, last, best, worst and most mixed groups; the tokens of their completions. Lists
name no more than what is there, so that nothing in the report leads to what is not.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from cluster.dashboard.files.encoding import encode
from cluster.dashboard.views.runs import find_runs, is_run
from cluster.dashboard.web.endpoints import MAX_SPANS, Asked, endpoint_of, saved_views
from cluster.dashboard.web.open_run import OpenRun
from cluster.dashboard.web.page import report_page
from cluster.dashboard.web.params import RequestError
from cluster.record.append_log import write_atomically
from cluster.run_files import Phase
from rollout.errors import ConfigError, ShoalError

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

MAX_ANSWERS_BYTES = 3_800_000
"""Of the answers as JSON; with the page's own files the report stays below 5 MB."""
MAX_STEPS = 12
PHASES: tuple[Phase, ...] = ("train", "eval")
WHOLE_RUN = ("overview", "doctor", "config", "fleet", "ledger", "ledger/groups")
TABLE_ROWS = 200
"""As many rows as the page asks for at a time."""
DEFAULT_SORT = "-step"
TIMELINE_STEPS = 3


class ReportError(ShoalError):
    """A report that cannot be written."""


def export_report(run: Path, out: Path) -> int:
    """Writes the report and returns its bytes. Raises ConfigError for what is no run, ReportError."""
    from cluster.dashboard.index.store import RunStore

    if not is_run(run):
        raise ConfigError(f"{run} is no run directory; give the folder that `shoal train` made")
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; name the file, as in -o report.html")
    name = next(iter(find_runs([run])))
    with contextlib.closing(RunStore(run)) as store:
        store.refresh()
        opened = OpenRun(name=name, path=run, revision=1, store=store)
        answers = Answers(opened, store, MAX_ANSWERS_BYTES).collect()
    data = report_page(answers, title=f"{name} - Shoal", run=name).html.encode()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, data)
    except (ShoalError, OSError) as error:
        raise ReportError(
            f"cannot write {out}: {getattr(error.__cause__ or error, 'strerror', None) or error}"
        ) from error
    return len(data)


class Answers:
    """Address -> answer, as many as fit."""

    def __init__(self, run: OpenRun, store: "RunStore", max_bytes: int) -> None:
        self._run = run
        self._store = store
        self._left = max_bytes
        self._answers: dict[str, Any] = {}
        self._base = f"/api/runs/{_escaped(run.name)}"

    def collect(self) -> dict[str, Any]:
        """Address -> answer, when all that fits is in."""
        frame = self._view("")
        frame["info"]["path"] = self._run.path.name  # where it lies on this machine is nobody else's business
        self._put("/api/runs", {"runs": [frame["info"]], "folders": []})
        self._put(self._base, frame)
        self._put("/api/views", {"views": saved_views()})
        for path in WHOLE_RUN:
            self._add(path)
        self._add_timeline()
        steps: list[tuple[Phase, list[int]]] = [
            (phase, evenly(self._store.table_steps(phase), MAX_STEPS)) for phase in PHASES
        ]
        pages = self._add_steps(steps)
        for group in self._add_groups(pages):
            self._add_rollouts(group)
        self._add_table()
        self._close_lists(steps)
        return self._answers

    def _view(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        found = endpoint_of(path.split("/") if path else [])
        assert found is not None, path
        endpoint, parts = found
        return endpoint.view(Asked(run=self._run, store=self._store, parts=parts, values=query or {}))

    def _put(self, address: str, answer: Any) -> bool:
        """Keeps an answer if it fits."""
        data = encode(answer)
        if len(data) > self._left:
            return False
        self._left -= len(data)
        self._answers[address] = json.loads(data)  # as the server would send it: no number that is none
        return True

    def _add(self, path: str) -> Any:
        """The answer of a path below the run, None if it is not there or does not fit."""
        with contextlib.suppress(RequestError):
            answer = self._view(path)
            if self._put(f"{self._base}/{'/'.join(map(_escaped, path.split('/')))}", answer):
                return answer
        return None

    def _add_timeline(self) -> None:
        """The whole run where all its spans fit, else its last steps."""
        most = {"limit": str(MAX_SPANS)}  # nothing can be asked for anew when somebody zooms in
        whole = self._view("timeline", most)
        if whole["waits_window"] is not None and whole["waits_window"][0] > whole["from"]:
            of_last = self._store.spans.steps()[-TIMELINE_STEPS:]
            if of_last:
                ends = (of_last[0].start_s, of_last[-1].end_s)
                within = {"from": f"{ends[0]:.6f}", "to": f"{ends[1]:.6f}"}
                whole = self._view("timeline", most | within) | {"extent": ends}
        self._put(f"{self._base}/timeline", whole)

    def _add_steps(self, steps: Iterable[tuple[Phase, Sequence[int]]]) -> list[dict[str, Any]]:
        """The pages of steps, first and last before those between: room may run out."""
        order = [(phase, step) for phase, listed in steps for step in ends_first(listed)]
        pages = (self._add(f"steps/{phase}/{step}") for phase, step in order)
        return [page for page in pages if page is not None]

    def _add_groups(self, pages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        groups = []
        for page in pages:
            for group_id in telling_groups(page["groups"]):
                group = self._add(f"groups/{page['phase']}/{page['step']}/{group_id}")
                groups += [group] if group is not None else []
        return groups

    def _add_rollouts(self, group: Mapping[str, Any]) -> None:
        for row in group["rollouts"]:
            self._add(f"rollouts/{group['phase']}/{group['step']}/{group['group_id']}/{row['sample_index']}")

    def _add_table(self) -> None:
        """The first rows of the table of rollouts, and of each saved view, as the page asks for them."""
        views = [{"filter": "", "sort": DEFAULT_SORT}, *saved_views()]
        for view in views:
            query = {"filter": view["filter"], "sort": view["sort"], "offset": "0", "limit": str(TABLE_ROWS)}
            table = self._view("rollouts", query)
            table["total"] = min(table["total"], len(table["rows"]))
            self._put(f"{self._base}/rollouts{_query(query)}", table)

    def _close_lists(self, steps: Iterable[tuple[Phase, Sequence[int]]]) -> None:
        """Takes what is not in the report out of the lists of steps and the ways from page to page."""
        for phase, listed in steps:
            there = [step for step in listed if f"{self._base}/steps/{phase}/{step}" in self._answers]
            self._answers[f"{self._base}/steps?phase={phase}"] = {"steps": there}
            for before, step, after in _with_neighbours(there):
                self._answers[f"{self._base}/steps/{phase}/{step}"] |= {"previous": before, "next": after}
        for kind in ("groups", "rollouts"):
            for address, answer in self._answers.items():
                if address.startswith(f"{self._base}/{kind}/"):
                    for way in ("previous", "next"):
                        if answer.get(way) and self._address(kind, answer[way]) not in self._answers:
                            answer[way] = None

    def _address(self, kind: str, where: Any) -> str:
        parts = where.split("/") if isinstance(where, str) else [str(part) for part in where.values()]
        return f"{self._base}/{kind}/{'/'.join(map(_escaped, parts))}"


def telling_groups(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids of the first and last group of a step, its best and worst, and the one whose rewards differ most."""
    scored = [group for group in groups if group["reward_mean"] is not None]
    by_mean: Callable[[Mapping[str, Any]], float] = lambda group: group["reward_mean"]  # noqa: E731
    chosen = [*groups[:1], *groups[-1:]]
    if scored:
        chosen += [
            max(scored, key=by_mean),
            min(scored, key=by_mean),
            max(scored, key=lambda group: group["reward_std"] or 0),
        ]
    return list(dict.fromkeys(group["group_id"] for group in chosen))


def evenly(items: Sequence[int], most: int) -> list[int]:
    """At most so many of the items, the first and the last among them, the others as far apart."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def ends_first(items: Sequence[int]) -> list[int]:
    """The last item before the others."""
    return [*items[-1:], *items[:-1]]


def _with_neighbours(items: Sequence[int]) -> Iterator[tuple[int | None, int, int | None]]:
    padded = [None, *items, None]
    for i, item in enumerate(items):
        yield padded[i], item, padded[i + 2]


def _escaped(part: str) -> str:
    """As encodeURIComponent of the page does."""
    return quote(part, safe="!'()*~")


def _query(values: Mapping[str, str]) -> str:
    """As the page writes a query: sorted, without empty values, in the escapes of URLSearchParams."""
    pairs = sorted((name, value) for name, value in values.items() if value != "")
    return "?" + "&".join(f"{name}={quote_plus(value, safe='*').replace('~', '%7E')}" for name, value in pairs)
