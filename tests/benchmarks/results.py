"""What benchmarks found: docs/benchmarks.json, the page that is made of it, and the comparison with what it says."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.pairs import Ratio

DOCS = Path(__file__).parents[2] / "docs"
FILE, PAGE = DOCS / "benchmarks.json", DOCS / "benchmarks.md"
MAX_CHANGE = 0.1
"""By which a ratio may be worse than the stored one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What a figure should reach."""

    value: float
    is_least: bool
    """Whether more is better."""

    def is_met(self, value: float) -> bool:
        """By a figure."""
        return value >= self.value if self.is_least else value <= self.value

    def __str__(self) -> str:
        return f"{'at least' if self.is_least else 'at most'} {self.value:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One figure."""

    name: str
    what: str
    """The ratio in words: this over that."""
    ratio: float
    low: float
    high: float
    bound: Bound | None
    """None for what is only told."""
    note: str = ""
    is_absolute: bool = False
    """Whether it has a unit: then it says as much of the machine, and is held against its bound alone."""
    machine: str = ""
    """What it was measured on."""

    @classmethod
    def of(
        cls,
        name: str,
        what: str,
        ratio: Ratio,
        bound: Bound | None = None,
        note: str = "",
        *,
        is_absolute: bool = False,
    ) -> "Result":
        """From pairs, on this machine."""
        return cls(
            name=name,
            what=what,
            ratio=ratio.median,
            low=ratio.low,
            high=ratio.high,
            bound=bound,
            note=note,
            is_absolute=is_absolute,
            machine=machine(),
        )

    @property
    def is_met(self) -> bool | None:
        """Whether the median reaches the bound."""
        return None if self.bound is None else self.bound.is_met(self.ratio)

    def is_worse_than(self, stored: "Result") -> bool:
        """By more than a tenth, where the interval does not reach the stored figure either."""
        if self.bound is None:
            return False
        if self.is_absolute:
            return not self.is_met
        if self.bound.is_least:
            return self.high < stored.ratio and self.ratio < stored.ratio * (1 - MAX_CHANGE)
        return self.low > stored.ratio and self.ratio > stored.ratio * (1 + MAX_CHANGE)


def machine() -> str:
    """What figures are measured on."""
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "")
    kinds = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag}" in flags]
    processor = names[0] if names else platform.processor()
    return f"{processor}, {len(os.sched_getaffinity(0))} cores ({', '.join(kinds)}), Python {platform.python_version()}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


def read() -> dict[str, Result]:
    """The stored figures, by name; none where there is no file."""
    if not FILE.exists():
        return {}
    return {line["name"]: _result(line) for line in json.loads(FILE.read_text(encoding="utf-8"))["results"]}


def _result(line: Mapping[str, Any]) -> Result:
    bound = None if line["bound"] is None else Bound(**line["bound"])
    return Result(**{key: value for key, value in line.items() if key not in ("bound", "is_met")}, bound=bound)


def write(results: Sequence[Result]) -> None:
    """Takes the place of what is stored of the same names; what was not measured this time stays."""
    kept = {**read(), **{result.name: result for result in results}}
    lines = [asdict(kept[name]) | {"is_met": kept[name].is_met} for name in sorted(kept)]
    FILE.write_text(json.dumps({"results": lines}, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(list(kept.values())), encoding="utf-8")


def page(results: Sequence[Result]) -> str:
    """docs/benchmarks.md."""
    machines = "; ".join(sorted({result.machine for result in results}))
    return f"""# Benchmarks

Ratios, where one is to be had: of two arms that take turns, the median of their pairs with its 90 % bootstrap interval;
seconds would say more of the machine. What has a unit says so. Made by `make bench`, each benchmark in a process of its
own; `make bench-check` measures again and fails where a ratio is worse by more than a tenth, or a figure with a unit
misses its bound. The figures as data: [benchmarks.json](benchmarks.json).

Measured on: {machines}.

| name | what | figure | interval | bound | met |
| --- | --- | --- | --- | --- | --- |
{_rows(results)}
"""


def _rows(results: Sequence[Result]) -> str:
    rows = []
    for result in sorted(results, key=lambda one: one.name):
        what = result.what + (f" ({result.note})" if result.note else "")
        row = f"| `{result.name}` | {what} | {result.ratio:.3g} | {result.low:.3g} to {result.high:.3g} |"
        met = {None: "", True: "yes", False: "no"}[result.is_met]
        rows.append(f"{row} {result.bound or ''} | {met} |")
    return "\n".join(rows)
