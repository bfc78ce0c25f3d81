"""What the server itself answers, for comparison with what the page shows."""

import json
import time
import urllib.request
from typing import Any
from urllib.parse import quote

INDEX_DEADLINE_S = 60.0


def ask(origin: str, path: str) -> Any:
    """The JSON of GET /api/`path`."""
    with urllib.request.urlopen(f"{origin}/api/{path}", timeout=20) as response:
        return json.load(response)


def wait_for_index(origin: str, run: str) -> None:
    """Returns when all rollouts of the run are in the index."""
    deadline = time.monotonic() + INDEX_DEADLINE_S
    while not ask(origin, f"runs/{quote(run)}")["index"]["ready"]:
        assert time.monotonic() < deadline, f"the index of {run} is not ready after {INDEX_DEADLINE_S} s"
        time.sleep(0.1)


def rollouts(origin: str, run: str, *, filter: str = "", sort: str = "-step", limit: int = 5) -> Any:
    """A part of the table of rollouts."""
    return ask(origin, f"runs/{quote(run)}/rollouts?filter={quote(filter)}&sort={quote(sort)}&limit={limit}")


def address(row: Any) -> str:
    """Of a row, as the page's addresses have it."""
    return f"{row['phase']}/{row['step']}/{row['group_id']}/{row['sample_index']}"
