"""Waiting on what a page has come to. Playwright's wait_for_function evaluates in the page, where the content policy
forbids it; here the question is asked from outside."""

import time
from collections.abc import Callable
from typing import Any

from tests.browser.conftest import ACTION_DEADLINE_MS

PAUSE_MS = 25.0


def until(page: Any, holds: Callable[[], bool], wanted: str = "") -> None:
    """Returns as soon as `holds()`; fails after the deadline of an action, saying what was `wanted` and the address."""
    deadline = time.monotonic() + ACTION_DEADLINE_MS / 1000
    while not holds():
        assert time.monotonic() < deadline, f"never came true: {wanted or 'the condition'}, at {page.url}"
        page.wait_for_timeout(PAUSE_MS)
