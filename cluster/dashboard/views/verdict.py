"""The sentence on top of the overview: does it learn, by how much, is anything wrong? Each part leads to what shows it.

Learning: held-out accuracy 59.3 % -> 67.6 %, +8.3 points (95 %: +2.1 to +14.5), and nothing is wrong.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cluster.dashboard.figures.derived import metric
from cluster.dashboard.figures.intervals import Difference, mean_difference, share_difference
from cluster.dashboard.figures.series import known, last_known
from cluster.dashboard.figures.thresholds import RunFacts
from cluster.dashboard.records import MetricTable

LEAST_STEPS, MOST_COMPARED = 12, 10
"""Steps from which on the reward is judged, and most of them at each end that are compared. Of fewer steps the noise is
known too badly for an interval of 95 %."""
ALARMING = ("error", "warning")
MOST_NAMED = 2
"""Findings that are named; of more, how many there are."""
Learns = Literal["learning", "worse", "unclear", "early"]
WORDS: Mapping[Learns, str] = {
    "learning": "Learning",
    "worse": "Getting worse",
    "unclear": "No clear change yet",
    "early": "Too early to tell",
}


def verdict(
    table: MetricTable, evaluations: MetricTable, facts: RunFacts, findings: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """The `verdict` of the API. `findings` are the doctor's. Held-out accuracy counts, where there was an evaluation
    before the training and one since; without, the reward in training."""
    held_out = _held_out(evaluations)
    moved, by = held_out if held_out is not None else _reward(table, facts)
    learns: Learns = "early"
    if moved is not None:
        learns = "learning" if moved.is_rise else "worse" if moved.is_fall else "unclear"
    wrong = _wrong(findings)
    parts = [_part(WORDS[learns], "steps"), by, wrong]
    joint = ", but " if wrong["state"] != "ok" and learns == "learning" else ", and "
    return {
        "learns": learns,
        "text": f"{parts[0]['text']}: {parts[1]['text']}{joint}{parts[2]['text']}.",
        "parts": parts,
        "joints": [": ", joint, "."],
        "interval": None if moved is None else {"value": moved.value, "low": moved.low, "high": moved.high},
    }


def _held_out(evaluations: MetricTable) -> tuple[Difference, dict[str, Any]] | None:
    pairs = zip(evaluations.steps, evaluations.columns.get("eval/pass_at_1", ()), strict=False)
    found = [(step, value) for step, value in pairs if value is not None]
    questions = last_known(evaluations.columns.get("eval/questions", ()))
    if len(found) < 2 or not questions:
        return None
    (first_step, before), (last_step, after) = found[0], found[-1]
    moved = share_difference(before, after, questions)
    since = "" if first_step == 0 else f" since step {first_step}"
    text = (
        f"held-out accuracy {100 * before:.1f} % -> {100 * after:.1f} %, {100 * moved.value:+.1f} points{since}"
        f" (95 %: {100 * moved.low:+.1f} to {100 * moved.high:+.1f})"
    )
    return moved, _part(text, "step", ("eval", last_step))


def _reward(table: MetricTable, facts: RunFacts) -> tuple[Difference | None, dict[str, Any]]:
    rewards = known(metric(table, facts, "reward/mean"))
    if len(rewards) < LEAST_STEPS:
        steps = "no step" if not rewards else "1 step" if len(rewards) == 1 else f"{len(rewards)} steps"
        return None, _part(f"{steps} so far", "steps")
    count = min(MOST_COMPARED, len(rewards) // 3)
    moved = mean_difference(rewards, count)
    text = (
        f"reward in training {moved.before:.3g} -> {moved.after:.3g}, {moved.value:+.2g}"
        f" (95 %: {moved.low:+.2g} to {moved.high:+.2g}; means of {count} steps)"
    )
    return moved, _part(text, "step", ("train", table.steps[-1]))


def _wrong(findings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = [finding for finding in findings if finding["severity"] in ALARMING]
    if not found:
        return _part("nothing is wrong", "doctor", state="ok")
    titles = [str(finding["title"]) for finding in found[:MOST_NAMED]]
    more = len(found) - len(titles)
    named = "; ".join(titles) + (f"; and {more} more" if more else "")
    things = "one thing is" if len(found) == 1 else f"{len(found)} things are"
    state = "alarm" if any(finding["severity"] == "error" for finding in found) else "watch"
    return _part(f"{things} wrong: {named}", "doctor", state=state)


def _part(text: str, page: str, parts: Sequence[str | int] = (), *, state: str = "none") -> dict[str, Any]:
    return {"text": text, "page": page, "parts": list(parts), "state": state}
