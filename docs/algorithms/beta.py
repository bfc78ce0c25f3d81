"""What beta does: a reward that can be hacked, at three weights of the KL term, in one picture.

The toy model is paid for a right sum, and paid more for a short answer. Without a KL term it learns what pays most, to
say one digit or nothing, and forgets the sums; with one it stays closer to where it began.

    python docs/algorithms/beta.py        # some minutes on two cores: writes beta.svg and prints a table
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl

from cluster.notebook import load_run

mpl.use("svg")
from matplotlib import pyplot as plt

BETAS = (0.0, 0.04, 0.4)
PICTURE = Path(__file__).parent / "beta.svg"
HACKABLE = "[{function: math}, {function: length, params: {target_tokens: 1, scale_tokens: 4}, weight: 4.0}]"
"""A right answer has two or three tokens with its end, and each of them costs as much as a right answer pays."""
COLUMNS = {
    "reward/mean": "Reward",
    "reward/accuracy": "Right answers, share",
    "train/kl_ref": "KL to the reference, nats",
}


def run(beta: float, steps: int, runs_dir: str) -> dict[str, list[float]]:
    """Values of each step, by column."""
    name = f"beta-{beta:g}"
    words = [
        f"name={name}",
        f"runs_dir={runs_dir}",
        f"steps={steps}",
        f"reward.functions={HACKABLE}",
        f"learner.objective.kl.coef={beta:g}",
        "learner.objective.kl.measure=true",
        "learner.diagnostics=all",  # or the KL at beta 0 is that of groups that still have something to compare
        "eval.at_start=false",
        "eval.at_end=false",
        "checkpoint.every=0",
    ]
    subprocess.run([sys.executable, "-m", "cluster.cli", "train", "tiny", *words], check=True)
    table = load_run(os.path.join(runs_dir, name)).metrics()
    return {column: list(table[column]) for column in COLUMNS}


def draw(found: dict[float, dict[str, list[float]]]) -> None:
    """One panel for each column, a line for each beta."""
    plt.rcParams["svg.hashsalt"] = "beta"  # or every drawing of the same numbers is another file
    figure, panels = plt.subplots(1, len(COLUMNS), figsize=(12, 3.4), layout="constrained")
    for panel, (column, label) in zip(panels, COLUMNS.items(), strict=True):
        for beta, values in found.items():
            panel.plot(range(1, len(values[column]) + 1), values[column], label=f"beta {beta:g}")
        panel.set_xlabel("step")
        panel.set_title(label)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    figure.savefig(PICTURE, metadata={"Date": None})


def main() -> None:
    """Runs, draws, and prints the last ten steps' means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as runs_dir:
        found = {beta: run(beta, steps, runs_dir) for beta in BETAS}
    draw(found)
    print("| beta | " + " | ".join(COLUMNS.values()) + " |\n|" + "---|" * (len(COLUMNS) + 1))
    for beta, values in found.items():
        last = [sum(values[column][-10:]) / len(values[column][-10:]) for column in COLUMNS]
        print(f"| {beta:g} | " + " | ".join(f"{value:.3f}" for value in last) + " |")


if __name__ == "__main__":
    main()
