"""`shoal export-report RUN -o FILE`: the page and a part of the API's answers in one HTML file, without network.

What goes in, most important first, until the file is full: the pages about the whole run; the first and last steps and
some between, or those that were chosen; the table of their rollouts, or of those that pass a filter; of these steps the
first, last, best, worst and most mixed groups; the tokens of their completions. Lists name no more than what is there,
so that nothing in the report leads to what is not.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cluster.dashboard.exports.report_rows import report_rows, selected_ids
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
MAX_TABLE_BYTES = 1_400_000
"""Of the table of rollouts, which has their whole texts."""
TIMELINE_STEPS = 3


class ReportError(ShoalError):
    """A report that cannot be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What of the run goes into the report."""

    steps: Sequence[tuple[int, int]] = ()
    """Ranges of steps, ends included; empty for the first, the last and some between."""
    filter: str = ""
    """Which rollouts, in the language of the table; empty for all."""

    def has(self, step: int) -> bool:
        """Whether the step was chosen."""
        return not self.steps or any(low <= step <= high for low, high in self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was written."""

    num_bytes: int
    steps: Sequence[int]
    """Training steps whose pages are in it."""
    num_rows: int
    num_rollouts: int
    """Rollouts in it, and of the run."""


def parse_steps(text: str) -> list[tuple[int, int]]:
    """ "0,10-20" -> [(0, 0), (10, 20)]. Raises ConfigError."""
    ranges = []
    for word in text.split(","):
        found = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", word)
        if found is None:
            raise ConfigError(f"--steps {text!r} has {word!r}; allowed are steps and ranges, as in 0,10-20")
        low, high = int(found[1]), int(found[2] or found[1])
        if low > high:
            raise ConfigError(f"--steps {text!r} has {word.strip()!r}, which ends before it begins; write {high}-{low}")
        ranges.append((low, high))
    return ranges


def export_report(run: Path, out: Path, choice: Choice | None = None) -> Report:
    """Writes the report. Raises ConfigError for what is no run or chooses nothing, FilterError, ReportError."""
    from cluster.dashboard.index.store import RunStore

    if not is_run(run):
        raise ConfigError(f"{run} is no run directory; give the folder that `shoal train` made")
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; name the file, as in -o report.html")
    name = next(iter(find_runs([run])))
    with contextlib.closing(RunStore(run)) as store:
        store.refresh()
        opened = OpenRun(name=name, path=run, revision=1, store=store)
        collected = Answers(opened, store, MAX_ANSWERS_BYTES, choice or Choice())
        answers = collected.collect()
        table = answers[f"{collected.base}/rollouts"]
        steps = answers[f"{collected.base}/steps?phase=train"]["steps"]
    data = report_page(answers, title=f"{name} - Shoal", run=name).html.encode()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, data)
    except (ShoalError, OSError) as error:
        raise ReportError(
            f"cannot write {out}: {getattr(error.__cause__ or error, 'strerror', None) or error}"
        ) from error
    return Report(num_bytes=len(data), steps=steps, num_rows=len(table["rows"]), num_rollouts=table["num_rollouts"])


class Answers:
    """Address -> answer, as many as fit."""

    def __init__(self, run: OpenRun, store: "RunStore", max_bytes: int, choice: Choice) -> None:
        self._run = run
        self._store = store
        self._left = max_bytes
        self._choice = choice
        self._answers: dict[str, Any] = {}
        self.base = f"/api/runs/{_escaped(run.name)}"
        """Of all addresses below the run."""

    def collect(self) -> dict[str, Any]:
        """Address -> answer, when all that fits is in."""
        steps = self._chosen_steps()
        frame = self._view("")
        frame["info"]["path"] = self._run.path.name  # where it lies on this machine is nobody else's business
        self._put("/api/runs", {"runs": [frame["info"]], "folders": []})
        self._put(self.base, frame)
        self._put("/api/views", {"views": saved_views()})
        for path in WHOLE_RUN:
            self._add(path)
        self._add_timeline()
        pages = self._add_steps(steps)
        self._add_table(pages)
        for group in self._add_groups(pages):
            self._add_rollouts(group)
        self._close_lists(steps)
        return self._answers

    def _chosen_steps(self) -> list[tuple[Phase, list[int]]]:
        """The steps of each phase. Raises ConfigError where nothing was chosen, FilterError."""
        choice = self._choice
        listed: dict[Phase, list[int]] = {
            phase: [step for step in self._store.table_steps(phase) if choice.has(step)] for phase in PHASES
        }
        if choice.steps and not any(listed.values()):
            known = self._store.table_steps("train")
            has = f"its steps are {known[0]} to {known[-1]}" if known else "it has none"
            raise ConfigError(f"{self._run.path} has no rollouts of the steps that --steps names; {has}")
        if choice.filter.strip():
            passing: dict[Phase, list[int]] = {
                phase: [step for step in steps if selected_ids(self._store, phase, step, choice.filter)]
                for phase, steps in listed.items()
            }
            if not any(passing.values()):
                raise ConfigError(f"no rollout of {self._run.path} passes --filter {choice.filter!r}; try a wider one")
            listed = passing
        return [(phase, steps if choice.steps else evenly(steps, MAX_STEPS)) for phase, steps in listed.items()]

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
            if self._put(f"{self.base}/{'/'.join(map(_escaped, path.split('/')))}", answer):
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
        self._put(f"{self.base}/timeline", whole)

    def _add_steps(self, steps: Iterable[tuple[Phase, Sequence[int]]]) -> list[dict[str, Any]]:
        """The pages of steps, first and last before those between: room may run out."""
        order = [(phase, step) for phase, listed in steps for step in ends_first(listed)]
        pages = (self._add(f"steps/{phase}/{step}") for phase, step in order)
        return [page for page in pages if page is not None]

    def _add_groups(self, pages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        groups = []
        for page in pages:
            passing = self._passing_groups(page["phase"], page["step"])
            for group_id in telling_groups([group for group in page["groups"] if group["group_id"] in passing]):
                group = self._add(f"groups/{page['phase']}/{page['step']}/{group_id}")
                groups += [group] if group is not None else []
        return groups

    def _add_rollouts(self, group: Mapping[str, Any]) -> None:
        for row in group["rollouts"]:
            self._add(f"rollouts/{group['phase']}/{group['step']}/{group['group_id']}/{row['sample_index']}")

    def _passing_groups(self, phase: Phase, step: int) -> set[str]:
        """Groups of the step of which a rollout passes the filter."""
        ids = selected_ids(self._store, phase, step, self._choice.filter)
        return {placed.row.group_id for placed in self._store.selected(ids)}

    def _add_table(self, pages: Sequence[Mapping[str, Any]]) -> None:
        """The rollouts of the steps that are in, with all that the page needs to filter and sort them."""
        steps = [(page["phase"], page["step"]) for page in pages]
        table = encode(report_rows(self._store, steps, self._choice.filter, min(MAX_TABLE_BYTES, self._left // 2)))
        self._left -= len(table)
        self._answers[f"{self.base}/rollouts"] = json.loads(table)  # always there, if without rows: the page asks it

    def _close_lists(self, steps: Iterable[tuple[Phase, Sequence[int]]]) -> None:
        """Takes what is not in the report out of the lists of steps and the ways from page to page."""
        for phase, listed in steps:
            there = [step for step in listed if f"{self.base}/steps/{phase}/{step}" in self._answers]
            self._answers[f"{self.base}/steps?phase={phase}"] = {"steps": there}
            for before, step, after in _with_neighbours(there):
                self._answers[f"{self.base}/steps/{phase}/{step}"] |= {"previous": before, "next": after}
        for kind in ("groups", "rollouts"):
            for address, answer in self._answers.items():
                if address.startswith(f"{self.base}/{kind}/"):
                    for way in ("previous", "next"):
                        if answer.get(way) and self._address(kind, answer[way]) not in self._answers:
                            answer[way] = None

    def _address(self, kind: str, where: Any) -> str:
        parts = where.split("/") if isinstance(where, str) else [str(part) for part in where.values()]
        return f"{self.base}/{kind}/{'/'.join(map(_escaped, parts))}"


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
