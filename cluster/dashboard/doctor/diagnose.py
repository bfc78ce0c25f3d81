"""The doctor: looks at a run through all rules and says what is wrong, since when, and what to try.

The same findings on the page (`doctor_page`), in the terminal (`doctor_text`) and as an exit code (`exit_code`).
"""

import dataclasses
import json
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cluster.dashboard.doctor.facts import Facts, Finding, gather
from cluster.dashboard.doctor.rules import RULES, Rule
from cluster.dashboard.files.encoding import visible
from rollout.errors import ConfigError

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

SEVERITIES = ("error", "warning", "info")
"""The worst first."""
EXIT_CODES = {"error": 4, "warning": 3, "info": 0}
WIDTH = 100
"""Columns of the text."""

Named = tuple[Rule, Finding]


def diagnose(facts: Facts, rules: Sequence[Rule] = RULES) -> list[Named]:
    """What the rules found, the worst first, and in the order of the rules where equally bad."""
    found = [(rule, finding) for rule in rules if (finding := rule.check(facts)) is not None]
    return sorted(found, key=lambda pair: SEVERITIES.index(pair[1].severity))


def doctor_page(store: "RunStore") -> dict[str, Any]:
    """`/api/runs/{run}/doctor`."""
    return page_of(diagnose(gather(store)))


def doctor_command(run: Path, format: Literal["text", "json"]) -> int:
    """`shoal doctor RUN`: prints what is wrong with a run; returns the exit code. Raises ConfigError for no run."""
    from cluster.dashboard.index.store import RunStore
    from cluster.dashboard.views.runs import is_run

    if not is_run(run):
        raise ConfigError(f"{run} is no run: it has none of a run's files; give the folder that `shoal train` made")
    store = RunStore(run)
    try:
        store.refresh()
        page = doctor_page(store)
    finally:
        store.close()
    print(json.dumps(page, allow_nan=False) if format == "json" else doctor_text(page))
    return exit_code(page)


def page_of(found: Iterable[Named]) -> dict[str, Any]:
    """Findings as the API has them."""
    return {
        "findings": [_json(rule, finding) for rule, finding in found],
        "rules": [{"rule": rule.name, "help": rule.help} for rule in RULES],
    }


def exit_code(page: dict[str, Any]) -> int:
    """0 when there is nothing but information, 3 with a warning, 4 with an error."""
    return max((EXIT_CODES[finding["severity"]] for finding in page["findings"]), default=0)


def doctor_text(page: dict[str, Any]) -> str:
    """The page for a terminal. What comes from a run is data: control characters are written as escapes."""
    if not page["findings"]:
        return f"nothing found by {len(page['rules'])} rules"
    return "\n\n".join(_text(finding) for finding in page["findings"])


def _text(finding: dict[str, Any]) -> str:
    since = "" if finding["since_step"] is None else f", since step {finding['since_step']}"
    lines = [f"{finding['severity'].upper()}  {finding['title']}  ({finding['rule']}{since})"]
    lines += _wrapped("    ", finding["evidence"])
    for title, sentences in (("may be:", finding["causes"]), ("try:", finding["try"])):
        for place, sentence in enumerate(sentences):
            lines += _wrapped(f"    {title if place == 0 else '':<8}", sentence)
    return "\n".join(visible(line) for line in lines)


def _wrapped(start: str, text: str) -> list[str]:
    # A number and its unit stay together: textwrap does not break at a no-break space.
    kept = text.replace(" %", "\N{NO-BREAK SPACE}%")
    lines = textwrap.wrap(kept, WIDTH, initial_indent=start, subsequent_indent=" " * len(start))
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]


def _json(rule: Rule, finding: Finding) -> dict[str, Any]:
    return {
        "rule": rule.name,
        "severity": finding.severity,
        "title": finding.title,
        "since_step": finding.since_step,
        "evidence": finding.evidence,
        "chart": None if finding.chart is None else dataclasses.asdict(finding.chart),
        "causes": list(finding.causes),
        "try": list(finding.attempts),
        "links": [
            {"label": link.label, "page": link.page, "parts": list(link.parts), "params": dict(link.params)}
            for link in finding.links
        ],
    }
