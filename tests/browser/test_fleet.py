"""The fleet: a card for each actor, the slow one visible at a glance."""

import re
from typing import Any

import pytest

from tests.browser.answers import ask
from tests.browser.conftest import Dashboard

pytestmark = pytest.mark.browser


def test_each_actor_has_a_card_with_its_figures(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/slow_sampler/fleet"))
    slow = page.get_by_test_id("actor-sampler-1")
    slow.wait_for()
    assert page.get_by_test_id("fleet").locator(".actor").count() == 6
    assert page.get_by_test_id("actor-state").all_inner_texts() == ["ended"] * 6
    assert "version 40" in slow.inner_text()
    fast = page.get_by_test_id("actor-sampler-0")
    assert re.search(r"100% of the fastest", fast.inner_text())
    share = re.search(r"(\d+)% of the fastest", slow.inner_text())
    assert share is not None
    assert 10 < int(share[1]) < 60
    assert slow.locator(".spark path").get_attribute("d").count("L") > 20
    total = ask(dashboard.origin, "runs/slow_sampler/ledger/groups?limit=1")["total"]
    assert str(total) in page.get_by_test_id("actor-controller").inner_text()  # groups, since it handles no tokens


def test_roles_are_summed_up(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/slow_sampler/fleet"))
    roles = page.get_by_test_id("fleet-roles")
    roles.wait_for()
    assert re.search(r"2 samplers \d+ to \d+ tokens/s", roles.inner_text())


def test_order_is_in_the_address(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/slow_sampler/fleet"))
    page.get_by_test_id("fleet-order").get_by_text("trouble first").click()
    page.wait_for_url(re.compile("order=trouble"))
    page.reload()
    page.get_by_test_id("fleet-order").locator("[aria-checked=true]", has_text="trouble first").wait_for()


def test_cards_lead_to_the_rollouts_of_a_sampler(page: Any, dashboard: Dashboard) -> None:
    page.goto(dashboard.url("/r/slow_sampler/fleet"))
    page.get_by_test_id("actor-sampler-1").get_by_text("its rollouts").click()
    page.wait_for_url(re.compile(r"#/r/slow_sampler/rollouts\?filter=worker%3Dsampler-1"))
