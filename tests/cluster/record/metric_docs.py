"""docs/metrics.md, made from the declarations: `python -m tests.cluster.record.metric_docs` writes it."""

from collections.abc import Sequence
from pathlib import Path

from cluster.record.metric_list import EVALUATION_METRICS, STEP_METRICS
from learner.metrics import Metric

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
HEAD = """# Metrics

A line of `metrics.jsonl` for each training step, a line of `evaluations.jsonl` for each evaluation, and the same names
in TensorBoard and the other trackers. A value that does not exist, as the mean of nothing, is left out. Every value
is taken over all of a step, or an evaluation, at once: nothing is a mean of means. A name with `*` is a family. An
evaluation of several tasks has what is over its questions and completions once more for each, as `eval/NAME/pass_at_1`.

This page is made from the declarations (`cluster/record/metric_list.py`, `learner/metrics.py`).
"""


def metrics_page() -> str:
    """The whole page."""
    parts = [HEAD, "## Training steps\n", _table(STEP_METRICS), "## Evaluations\n", _table(EVALUATION_METRICS)]
    return "\n".join(parts)


def _table(metrics: Sequence[Metric]) -> str:
    rows = ["| name | what | unit | over | reduced by |", "| --- | --- | --- | --- | --- |"]
    for metric in metrics:
        what = f"{metric.label.rstrip(':')}. {metric.help}".strip()
        rows.append(f"| `{metric.name}` | {what} | {metric.unit} | {metric.over} | {metric.reduce} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(metrics_page(), encoding="utf-8")
