"""The commands of `shoal` that read runs: dashboard, export-report, sql. They load no more than they need."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

DEFAULT_PORT = 7533
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


def _dashboard(arguments: argparse.Namespace) -> int:
    from cluster.dashboard.runs import check_roots
    from cluster.dashboard.server import ServerOptions, serve

    roots = arguments.runs or [Path("runs")]
    check_roots(roots)
    serve(
        ServerOptions(
            roots=tuple(roots),
            host=arguments.host,
            port=arguments.port,
            allow_hosts=tuple(arguments.allow_host),
            require_token=arguments.token,
        ),
        open_browser=arguments.open,
    )
    return 0


def _sql(arguments: argparse.Namespace) -> int:
    from cluster.dashboard.sql import sql_command

    sql_command(arguments.run, arguments.query, arguments.format, sys.stdout)
    return 0


def _export_report(arguments: argparse.Namespace) -> int:
    from cluster.dashboard.export_report import export_report

    num_bytes = export_report(arguments.run, arguments.out)
    print(f"{arguments.out}, {num_bytes / 1e6:.1f} MB")
    return 0
