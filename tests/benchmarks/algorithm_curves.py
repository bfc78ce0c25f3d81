"""`tiny` under the objective of every paper, over seeds: a table of held-out accuracies and a picture of the curves.

    python -m tests.benchmarks.algorithm_curves RUNS_DIR            # 40 steps, seeds 0, 1 and 2; two minutes a run
    python -m tests.benchmarks.algorithm_curves RUNS_DIR --seeds 0 --only gspo dapo

Runs are kept in RUNS_DIR, and one that is finished there is not run again: so a measurement may be stopped and gone on
with. Table and picture are of all that is finished, and go to docs/algorithms/curves.md and curves.svg.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.configuration.loading import list_objectives

PAGES = Path(__file__).parents[2] / "docs" / "algorithms"
FOR_TINY = {
    # The toy model says no more than an answer, and has no equations to check.
    "deepseekmath_process": ["reward.steps.function=tests.reward.step_functions:right_steps"],
    # Fifty steps between updates are more than the run has.
    "deepseekmath_iterative": ["learner.objective.reference.every=10"],
}
NUM_SMOOTHED = 5
"""Steps of training accuracy that a point of a curve is the mean of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """One run."""

    before: float
    """Held-out accuracy, 0 to 1."""
    after: float
    curve: tuple[float, ...]
    """Share of right answers in each training step."""


def run_path(runs_dir: Path, name: str, seed: int, steps: int) -> Path:
    return runs_dir / f"{name}-{steps}-steps-seed-{seed}"


def finished_at(path: Path) -> Finished | None:
    """What a run found; None for one that has not ended well."""
    if not (path / "summary.json").is_file():
        return None
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    if summary["status"] != "finished":
        return None
    lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    curve = tuple(json.loads(line)["reward/accuracy"] for line in lines)
    return Finished(before=summary["accuracy_before"], after=summary["accuracy_after"], curve=curve)


def train(runs_dir: Path, name: str, seed: int, steps: int) -> None:
    """One run, unless it is finished already."""
    path = run_path(runs_dir, name, seed, steps)
    if finished_at(path) is not None:
        return
    words = [f"objective={name}", f"seed={seed}", f"steps={steps}", "checkpoint.every=0", *FOR_TINY.get(name, [])]
    command = [sys.executable, "-m", "cluster.cli", "train", "tiny", *words, "--run-dir", str(path)]
    subprocess.run(command, check=True)


def table_of(found: Mapping[str, Sequence[Finished]]) -> str:
    """Markdown: a row for each objective, the best last accuracy first."""
    rows = ["| objective | seeds | before | after | after, each seed |", "| --- | --- | --- | --- | --- |"]
    for name, runs in sorted(found.items(), key=lambda row: -statistics.mean(run.after for run in row[1])):
        before, after = (statistics.mean(values) for values in zip(*((r.before, r.after) for r in runs), strict=True))
        each = ", ".join(f"{100 * run.after:.1f}" for run in runs)
        rows.append(f"| `{name}` | {len(runs)} | {100 * before:.1f} | {100 * after:.1f} | {each} |")
    return "\n".join(rows)


def smoothed(runs: Sequence[Finished]) -> list[float]:
    """Mean over seeds, then over the last `NUM_SMOOTHED` steps."""
    means = [statistics.mean(values) for values in zip(*(run.curve for run in runs), strict=True)]
    return [statistics.mean(means[max(0, i + 1 - NUM_SMOOTHED) : i + 1]) for i in range(len(means))]


def draw(found: Mapping[str, Sequence[Finished]], file: Path) -> None:
    """A small panel for each objective, all others in grey behind it."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams["svg.hashsalt"] = "curves"  # or every drawing of the same numbers is another file
    width = 3
    figure, panels = plt.subplots(
        -(-len(found) // width), width, figsize=(9, 2.1 * -(-len(found) // width)), sharex=True, sharey=True,
        layout="constrained", squeeze=False,
    )  # fmt: skip
    curves = {name: smoothed(runs) for name, runs in found.items()}
    for panel in panels.flat[len(curves) :]:
        panel.axis("off")
    for panel, name in zip(panels.flat, curves, strict=False):
        for other, values in curves.items():
            is_own = other == name
            panel.plot(values, color="tab:blue" if is_own else "0.85", zorder=2 if is_own else 1)
        panel.set_title(name, fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("training step", fontsize=9)
    figure.supylabel(f"share of right answers, mean of {NUM_SMOOTHED} steps", fontsize=9)
    figure.savefig(file, metadata={"Date": None})


def page_of(found: Mapping[str, Sequence[Finished]], steps: int) -> str:
    """docs/algorithms/curves.md."""
    missing = [f"`{path.stem}`" for path in list_objectives() if path.stem not in found]
    not_run = f"\n\nNot run yet: {', '.join(missing)}." if missing else ""
    return f"""# Curves

`tiny` under each objective: {steps} training steps, held-out accuracy in percent before and after, of 256 completions
for each seed. Made by `python -m tests.benchmarks.algorithm_curves`. Learning rate and batch are those of `tiny` for
all, and not tuned for any.

{table_of(found)}{not_run}

![Share of right answers over training steps, a panel for each objective](curves.svg)
"""


def main() -> None:
    """Runs what is missing, one after the other, and writes table and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs_dir", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[path.stem for path in list_objectives()])
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for name in arguments.only:
            train(arguments.runs_dir, name, seed, arguments.steps)
    found: dict[str, list[Finished]] = {}
    for path in list_objectives():
        for seed in range(100):
            run = finished_at(run_path(arguments.runs_dir, path.stem, seed, arguments.steps))
            if run is not None:
                found.setdefault(path.stem, []).append(run)
    draw(found, PAGES / "curves.svg")
    (PAGES / "curves.md").write_text(page_of(found, arguments.steps), encoding="utf-8")


if __name__ == "__main__":
    main()
