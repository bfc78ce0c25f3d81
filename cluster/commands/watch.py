"""The command `shoal watch`."""

import argparse
import contextlib
import sys
from pathlib import Path

from cluster.commands.dashboard import Add


def add_watch_command(add: Add) -> None:
    """Adds the parser."""
    watch = add("watch", _watch, "show a run that goes on elsewhere, live in the terminal")
    watch.add_argument(
        "run",
        nargs="?",
        type=Path,
        default=Path("runs"),
        metavar="RUN",
        help="a run, or a folder of them: its live one (runs)",
    )
    watch.add_argument("--once", action="store_true", help="show how it is now, and end")


def _watch(arguments: argparse.Namespace) -> int:
    from cluster.dashboard.exports.watch import run_to_watch, watch

    with contextlib.suppress(KeyboardInterrupt):  # the ordinary end: the run goes on
        watch(run_to_watch(arguments.run), sys.stdout, once=arguments.once)
    return 0
