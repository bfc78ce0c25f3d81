"""The command `shoal rollouts`: what passes a filter, listed or written to a file."""

import argparse
import sys
from pathlib import Path

from cluster.commands.dashboard import Add

SHAPES = ("rollouts", "sft", "dpo", "sft-text", "dpo-text")


def add_selection_commands(add: Add) -> None:
    """Adds the parser."""
    rollouts = add("rollouts", _rollouts, "list the rollouts that pass a filter, or write them to a file")
    rollouts.add_argument("run", type=Path, metavar="RUN", help="a run directory; the run may be live")
    rollouts.add_argument(
        "--filter", default="", metavar="FILTER", help="as in the dashboard, for example 'correct & step:10-20'"
    )
    rollouts.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="ends in .jsonl, .csv or .parquet; without it a table is printed"
    )
    rollouts.add_argument(
        "--as",
        dest="shape",
        choices=SHAPES,
        default="rollouts",
        help="rollouts: every column; sft: prompt and completion; dpo: of each group the best and the worst; both as "
        "turns of a chat, or with -text as strings",
    )
    rollouts.add_argument("--tokens", action="store_true", help="with the columns that have a value for each token")


def add_tag_command(add: Add) -> None:
    """Adds the parser."""
    tag = add("tag", _tag, "tag, note or archive a run; the list of runs shows it, and leaves out what is archived")
    tag.add_argument("run", type=Path, metavar="RUN")
    tag.add_argument("--add", action="append", default=[], metavar="TAG")
    tag.add_argument("--remove", action="append", default=[], metavar="TAG")
    tag.add_argument("--note", metavar="TEXT", help="an empty one takes it away")
    tag.add_argument("--archive", action=argparse.BooleanOptionalAction, help="leave it out of the list, or not")


def _tag(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from cluster.dashboard.files.encoding import visible
    from cluster.dashboard.files.run_tags import read_tags, write_tags
    from cluster.dashboard.views.runs import is_run
    from rollout.errors import ConfigError

    run: Path = arguments.run
    if not is_run(run):
        raise ConfigError(f"{run} is no run: it has none of a run's files; give the folder that `shoal train` made")
    before = read_tags(run)
    kept = {*before.tags, *(tag.strip() for tag in arguments.add)} - set(arguments.remove)
    note = before.note if arguments.note is None else arguments.note.strip() or None
    archived = before.archived if arguments.archive is None else arguments.archive
    now = replace(before, tags=tuple(sorted(kept)), note=note, archived=archived)
    if now != before:
        write_tags(run, now)
    said = [*now.tags, *(["archived"] if now.archived else []), *([f"note: {now.note}"] if now.note else [])]
    print(visible(f"{run}: {', '.join(said) or 'no tags'}"))
    return 0


def add_label_command(add: Add) -> None:
    """Adds the parser."""
    label = add("label", _label, "label, note or bookmark a completion; filters and the dashboard show it")
    label.add_argument("run", type=Path, metavar="RUN")
    label.add_argument("address", metavar="ADDRESS", help="of a completion, as train/4/000032-5f1c09be12aa03d4/0")
    label.add_argument("--label", metavar="TEXT", help="an empty one takes it away")
    label.add_argument("--note", metavar="TEXT", help="an empty one takes it away")
    label.add_argument("--bookmark", action=argparse.BooleanOptionalAction, help="set it, or take it away")


def _label(arguments: argparse.Namespace) -> int:
    from cluster.dashboard.exports.rollouts import label_command

    changes = {"label": arguments.label, "note": arguments.note, "bookmarked": arguments.bookmark}
    label_command(arguments.run, arguments.address, {name: new for name, new in changes.items() if new is not None})
    return 0


def _rollouts(arguments: argparse.Namespace) -> int:
    from cluster.dashboard.exports.rollouts import export_command, format_of, list_command
    from cluster.dashboard.selection.export import Asked
    from rollout.errors import ConfigError

    if arguments.out is None:
        if arguments.shape != "rollouts" or arguments.tokens:
            raise ConfigError("--as and --tokens are for a file; name one, as in -o rollouts.jsonl")
        list_command(arguments.run, arguments.filter, sys.stdout)
        return 0
    asked = Asked(
        filter=arguments.filter,
        shape=arguments.shape,
        format=format_of(arguments.out),
        tokens=arguments.tokens,
    )
    export_command(arguments.run, asked, arguments.out)
    return 0
