"""The commands of `shoal` that read runs: dashboard, export-report, sql. They load no more than they need."""

import argparse
import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster.dashboard.web.address import DEFAULT_PORT, ServerOptions
from rollout.module_loading import SAFE_PYTHON, python_path

START_S, END_S = 20.0, 5.0
"""How long a dashboard beside a run is waited for, at its start and its end."""
Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""(name, command, help) -> the parser of a new command."""


def add_dashboard_commands(add: Add) -> None:
    """Adds the parsers."""
    dashboard = add("dashboard", _dashboard, "show runs, live or ended, in a web page")
    dashboard.add_argument(
        "runs", nargs="*", type=Path, metavar="RUNS", help="run directories, or folders with runs in them (runs)"
    )
    dashboard.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (127.0.0.1); beyond loopback a token is needed"
    )
    dashboard.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"({DEFAULT_PORT}); 0 for any that is free")
    dashboard.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="another name that browsers reach it by"
    )
    dashboard.add_argument("--token", action="store_true", help="ask for a token on loopback too, where others log in")
    dashboard.add_argument(
        "--allow-writing", action="store_true", help="who has the token may label and note completions"
    )
    dashboard.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # end with this process, which started it
    dashboard.add_argument("--open", action="store_true", help="open the page in a browser")

    sql = add("sql", _sql, "ask the files of a run with SQL")
    sql.add_argument("run", type=Path, metavar="RUN")
    sql.add_argument(
        "query",
        metavar="QUERY",
        help="over rollouts, evals, metrics, evaluations, events, ledger; `show tables` lists them",
    )
    sql.add_argument("--format", choices=("table", "csv", "json"), help="(table on a terminal, else csv)")
    report = add("export-report", _export_report, "write a run as one HTML file that needs no network")
    report.add_argument("run", type=Path, metavar="RUN")
    report.add_argument("-o", "--out", type=Path, required=True, metavar="FILE")
    report.add_argument(
        "--steps", metavar="STEPS", help="training steps and evaluations to put in, as in 0,10-20 (some of all)"
    )
    report.add_argument("--filter", default="", metavar="FILTER", help="which rollouts, as in the page's table (all)")


def _dashboard(arguments: argparse.Namespace) -> int:
    from cluster.dashboard.views.runs import check_roots
    from cluster.dashboard.web.server import serve

    roots = arguments.runs or [Path("runs")]
    check_roots(roots)
    serve(
        ServerOptions(
            roots=tuple(roots),
            host=arguments.host,
            port=arguments.port,
            allow_hosts=tuple(arguments.allow_host),
            require_token=arguments.token,
            allow_writing=arguments.allow_writing,
            parent=arguments.parent,
        ),
        open_browser=arguments.open,
    )
    return 0


def _sql(arguments: argparse.Namespace) -> int:
    from cluster.dashboard.exports.sql import sql_command

    sql_command(arguments.run, arguments.query, arguments.format, sys.stdout)
    return 0


def _export_report(arguments: argparse.Namespace) -> int:
    from cluster.dashboard.exports.report import Choice, export_report, parse_steps

    steps = parse_steps(arguments.steps) if arguments.steps is not None else ()
    report = export_report(arguments.run, arguments.out, Choice(steps=steps, filter=arguments.filter))
    print(
        f"{arguments.out}, {report.num_bytes / 1e6:.1f} MB: {len(report.steps)} training steps,"
        f" {report.num_rows:,} of {report.num_rollouts:,} rollouts"
    )
    return 0


@contextlib.contextmanager
def dashboard_beside(run_path: Path) -> Iterator[None]:
    """A dashboard in a process of its own while the block runs; its address is printed before.

    It shows the runs beside this one too. Should it not start, that is told, and the block runs all the same.
    """
    folder = run_path.absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    words = ["dashboard", str(folder), "--parent", str(os.getpid()), "--port", str(_free_port())]
    # A session of its own: Ctrl-C in the terminal is for the run, which then ends the dashboard.
    child = subprocess.Popen(
        [sys.executable, *SAFE_PYTHON, "-m", "cluster.cli", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(python_path())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        address = _first_line(child)
        if address:
            from cluster.dashboard.views.runs import plain_name

            print(f"dashboard: {address}#/r/{plain_name(run_path.absolute().name)}", flush=True)
        else:
            print("shoal: the dashboard did not start; the run goes on without it", file=sys.stderr)
        yield
    finally:
        child.terminate()
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _first_line(child: subprocess.Popen[bytes]) -> str:
    """What it prints once it listens; empty when it ended before, or takes too long."""
    assert child.stdout is not None
    ready, _, _ = select.select([child.stdout], [], [], START_S)
    return child.stdout.readline().decode().strip() if ready else ""


def _free_port() -> int:
    """The usual port, or 0 for any where that is taken: a run must not fail for it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_PORT))
        except OSError:
            return 0
    return DEFAULT_PORT
