"""Two runs in which every text that anybody but us may have written is an attack on the page that shows it.

Each payload that runs sets `window.pwned`; each that loads something asks evil.invalid.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from cluster.configuration.recipe_yaml import dump_yaml, parse_yaml
from cluster.dashboard.views.runs import plain_name
from cluster.record.append_log import json_line
from cluster.types import Event, EventKind
from tests.cluster.dashboard.small_runs import START_S, write_run

SCRIPT = "<script>window.pwned=1</script>"
CORPUS = (
    SCRIPT,
    "</script></title></textarea></bdi><script>window.pwned=2</script>",
    '<img src=x onerror="window.pwned=3"><img src=http://evil.invalid/pixel.png>',
    "<svg onload=window.pwned=4><a xlink:href='javascript:window.pwned=5'><text>x</text></a></svg>",
    '[link](javascript:window.pwned=6) ![image](http://evil.invalid/i.png) <a href="javascript:window.pwned=7">x</a>',
    '<a href="data:text/html,<script>top.pwned=8</script>">x</a><iframe srcdoc="<script>parent.pwned=9</script>">',
    "{{7*7}} {{constructor.constructor('window.pwned=10')()}} ${window.pwned=11} <${window.pwned=12} /> <%= 7*7 %>",
    "\x1b[31mred\x1b[0m \x1b]8;;http://evil.invalid/\x07osc\x1b]8;;\x07 \x9b1m",
    "\u202eright to left\u202c \u2066isolated\u2069 \u200fmark",
    "zero\u200bwidth\u200d\ufeff\u2060 soft\u00adhyphen \U000e0041tag",
    "NUL \x00 BEL \x07 BS \x08 DEL \x7f",
    "<!-- comment --> <!--[if IE]><script>window.pwned=13</script><![endif]--> <![CDATA[x]]>",
    '<base href="http://evil.invalid/"><meta http-equiv="refresh" content="0;url=http://evil.invalid/">',
    '<style>*{display:none;background:url(http://evil.invalid/c)}</style><p style="width:expression(window.pwned=14)">',
    '<link rel="stylesheet" href="http://evil.invalid/s.css"><object data="http://evil.invalid/o"></object>',
    "<form action=javascript:window.pwned=15><button autofocus onfocus=window.pwned=16>x</button></form>",
    '"><details open ontoggle=window.pwned=17>\'"`=/\\',
    "Z" + "\u0301" * 60 + " \ufdfd \u2028line\u2029separators",
)
"""Without lone surrogates: those have to go into each file in a way of their own."""
ALL = " ".join(CORPUS)
SURROGATES = "\ud800 lone \udfff"
NAME = SCRIPT + "\u202e\x00{{7*7}}" + '<img src=x onerror="window.pwned=20">'
"""Where a short one is expected."""
LONG_NAME = "a_name_without_an_end_" * 30
"""Wider than any window."""
RUN, OTHER = "<img src=x onerror=window.pwned=21> & '\u202e\"`{{7*7}}", "other"
LINE = 1_000_000
PIECE = "abcdefghi "
PIECES = (*CORPUS, SURROGATES, PIECE, "x" * LINE, "\n")
LONG_STEP = 2
"""Of its first group, sample 0 is a line of a million characters in 100 000 tokens, sample 1 one in a single token,
sample 2 a million control characters."""


def write_hostile_runs(folder: Path) -> tuple[str, str]:
    """Their names as the dashboard has them."""
    for name in (RUN, OTHER):
        run = write_run(folder / name)
        run.write_vocabulary(PIECES)
        for path in sorted((run.path / "rollouts").iterdir()):
            _rewrite_table(path)
        for log, change in (("events", _hostile_event), ("ledger", _hostile_entry), ("metrics", _hostile_metrics)):
            lines = run.read_log(log)
            run.log_path(log).write_text("".join(json_line(change(line)) + "\n" for line in lines))
        for text in (NAME, "error", "stale weights"):
            extra = {"name": text, "text": ALL + SURROGATES, "error": ALL, "reason": ALL, NAME: ALL}
            run.append_event(
                Event(kind=EventKind.INSTANT, actor=NAME, start_s=START_S + 9, end_s=START_S + 9, step=1, extra=extra)
            )
        _rewrite_json(run.path / "summary.json", {"status": "failed", "error": ALL + SURROGATES})
        _rewrite_config(run.path / "config.yaml")
    return plain_name(RUN), OTHER


def _rewrite_table(path: Path) -> None:
    table = pyarrow.parquet.read_table(path)
    rows = table.to_pylist()
    for number, row in enumerate(rows):
        text = f"{NAME} {CORPUS[number % len(CORPUS)]} {ALL} \\ud800"  # the writer spells a lone surrogate out
        _fill(row, range(len(CORPUS) + 1), text)
        row |= dict.fromkeys(("question", "prompt_text", "ground_truth", "detail"), f"{NAME} {ALL}") | {"task": NAME}
        row |= {"worker": NAME if number < 4 else row["worker"], "reward_worker": LONG_NAME, "answer": NAME}
        row["components"] = json.dumps(
            {NAME: 1.0, LONG_NAME: 0.1, "__proto__": 0.5, "constructor": 0.25, "math": row["reward"]}
        )
        row["prompt_token_ids"] = list(range(len(CORPUS)))
    if path.stem == f"step-{LONG_STEP:06d}":
        piece, single = PIECES.index(PIECE), PIECES.index("x" * LINE)
        _fill(rows[0], [piece] * (LINE // len(PIECE)), PIECE * (LINE // len(PIECE)))
        _fill(rows[1], [single, single], "x" * LINE)
        _fill(rows[2], range(len(CORPUS)), "\x01\u202e\u200b\x00" * (LINE // 4))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=table.schema), path)


def _fill(row: dict[str, Any], ids: Sequence[int], text: str) -> None:
    """With learner's figures where the advantage is not 0."""
    count = len(ids)
    trained = count if row["policy_logprobs"] else 0
    row |= {"token_ids": list(ids), "completion_text": text, "loss_mask": [True] * count}
    row |= {"rollout_logprobs": [-0.5] * count, "policy_logprobs": [-0.75] * trained, "entropies": [0.5] * trained}
    row["version_spans"] = json.dumps([[row["max_policy_version"], 0, count]])


def _hostile_event(line: dict[str, Any]) -> dict[str, Any]:
    actor = line["actor"] if line["actor"] != "sampler-0" else NAME + SURROGATES
    actor = LONG_NAME if actor == "sampler-1" else actor
    return line | {"actor": actor, "extra": line["extra"] | {NAME: ALL + SURROGATES}}


def _hostile_entry(line: dict[str, Any]) -> dict[str, Any]:
    changed = {"worker": NAME + SURROGATES} if "worker" in line else {}
    return line | changed | ({"reason": NAME + SURROGATES} if line.get("reason") else {})


def _hostile_metrics(line: dict[str, Any]) -> dict[str, Any]:
    components = {f"reward/component/{name}": 0.5 for name in (NAME, LONG_NAME)}
    return line | components | {NAME: 1.0, SURROGATES: 2.0, "__proto__": 3.0, "constructor": 4.0}


def _rewrite_json(path: Path, change: dict[str, Any]) -> None:
    path.write_text(json_line(json.loads(path.read_text()) | change))


def _rewrite_config(path: Path) -> None:
    config = parse_yaml(path.read_text(encoding="utf-8"), path.name)
    config["task"] |= {"name": NAME, "generator": ALL}
    config["model"]["path"] = NAME
    config |= {"name": ALL, NAME: ALL, "__proto__": {"polluted": NAME}, "constructor": ALL}
    # Characters that YAML does not allow come through as escapes; a lone surrogate is spelt by hand.
    path.write_text(dump_yaml(config) + 'surrogates: "\\uD800 lone \\uDFFF"\n', encoding="utf-8")
