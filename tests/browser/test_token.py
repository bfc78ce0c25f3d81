"""A dashboard that asks for its token, opened without one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard.web.security import Access, access_for
from tests.browser.conftest import Complaints
from tests.cluster.dashboard.served import Served, serving
from tests.cluster.dashboard.small_runs import write_run

pytestmark = pytest.mark.browser


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[Served, Access]]:
    write_run(tmp_path / "one", num_steps=1)
    access = access_for("127.0.0.1", require_token=True)
    with serving([tmp_path], access) as served:
        yield served, access


@pytest.fixture
def complaints(guarded: tuple[Served, Access]) -> Complaints:
    return Complaints(texts=[], allowed_origins={f"http://127.0.0.1:{guarded[0].port}"})


def test_a_token_that_is_pasted_opens_the_page_that_was_meant(
    page: Any, complaints: Complaints, guarded: tuple[Served, Access]
) -> None:
    served, access = guarded
    complaints.expect("401")
    page.goto(f"http://127.0.0.1:{served.port}/#/r/one/config")
    page.get_by_label("Token").fill("guess")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("That is not the token of this dashboard.").wait_for()
    page.get_by_label("Token").fill(access.token)
    page.get_by_role("button", name="Open").click()
    page.get_by_role("link", name="Config").wait_for()
    assert page.url == f"http://127.0.0.1:{served.port}/#/r/one/config"  # and no token in it
    page.reload()
    page.get_by_role("link", name="Config").wait_for()
