"""`import shoal`: a run in a notebook. The package `shoal` of an installation is this folder (pyproject.toml).

run = shoal.load_run("runs/quickstart-20260101-120000")
run.rollouts("correct & step:10-20")
"""

from cluster.dashboard.exports.frames import Run, load_run

__all__ = ["Run", "load_run"]
