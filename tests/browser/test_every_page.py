"""What holds on every page, in both themes: nothing that axe-core finds, nothing wider than a phone, a heading, and
a way past the header."""

from pathlib import Path
from typing import Any

import pytest

from tests.browser.answers import rollouts, wait_for_index
from tests.browser.conftest import Complaints, Dashboard
from tests.browser.waiting import until

pytestmark = pytest.mark.browser
AXE = Path(__file__).parents[1] / "scripts" / "node_modules" / "axe-core" / "axe.min.js"
RUN = "healthy"
PHONE = {"width": 390, "height": 844}
PAGES = {
    "/": "run-row",
    f"/r/{RUN}/overview": "chart-reward",
    f"/r/{RUN}/step/train/22": "grid",
    f"/r/{RUN}/step/eval/40": "grid",
    f"/r/{RUN}/rollouts": "rollout-row",
    f"/r/{RUN}/rollouts?view=groups": "group-table-row",
    "/?cols=doctor,curve,config.learner.lr": "run-row",
    f"/r/{RUN}/rollouts?filter=len%3E40 %26 !correct&sort=-max_gap": "rollout-row",
    f"/r/{RUN}/group/GROUP?order=reward": "column",
    f"/r/{RUN}/group/GROUP?pick=0,1&diff=1": "twoup",
    f"/r/{RUN}/rollout/GROUP/0": "tokens",
    f"/r/{RUN}/rollout/GROUP/0?view=text": "text-tab",
    f"/r/{RUN}/timeline": "gantt",
    "/r/slow_sampler/fleet": "fleet",
    f"/r/{RUN}/ledger": "ledger-row",
    f"/compare?runs={RUN},entropy_collapse": "figures",
    "/r/stale_weights/doctor": "finding",
    f"/r/{RUN}/doctor": "doctor-well",
    f"/r/{RUN}/config": "config-table",
    f"/r/{RUN}/metrics": "metrics",
    f"/r/{RUN}/nothing": "page-head",
}
"""Address -> what is there once the page is drawn."""
VIOLATIONS = """() => axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) =>
  violations.flatMap(({ id, nodes }) => nodes.map(node => `${id}: ${node.target.join(" ")}`)))"""
SIDEWAYS = "() => { scrollTo(10000, 0); return scrollX; }"
"""How far the page can be scrolled to the right."""


def shown(page: Any, dashboard: Dashboard, address: str) -> None:
    for run in (RUN, "slow_sampler", "stale_weights"):
        if f"/r/{run}/" in address:
            wait_for_index(dashboard.origin, run)
    row = rollouts(dashboard.origin, RUN, filter="step:22 & correct & phase=train")["rows"][0]
    group = f"train/22/{row['group_id']}"
    page.goto(dashboard.url(address.replace("GROUP", group)))
    page.get_by_test_id(PAGES[address]).first.wait_for()


@pytest.mark.parametrize("address", PAGES)
def test_nobody_is_kept_out(page: Any, dashboard: Dashboard, address: str) -> None:
    shown(page, dashboard, address)
    assert page.locator("h1").count() == 1
    assert page.locator("h1").inner_text().strip()
    if AXE.is_file():
        page.evaluate(AXE.read_text(encoding="utf-8"))
        for theme in ("light", "dark"):
            page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
            assert page.evaluate(VIOLATIONS) == [], theme
    page.set_viewport_size(PHONE)
    page.wait_for_timeout(100)  # charts take their new width in the next frame
    assert page.evaluate(SIDEWAYS) == 0
    wide = page.evaluate(
        "() => [...document.querySelectorAll('.top-row *, .page-head *')].filter(element => {"
        "  const box = element.getBoundingClientRect();"
        "  return box.width > 1 && getComputedStyle(element).visibility !== 'hidden' && box.right > innerWidth + 0.5;"
        "}).map(element => element.outerHTML.slice(0, 80))"
    )
    assert wide == [], "the header wraps"


def test_axe_finds_what_is_wrong(page: Any, dashboard: Dashboard) -> None:
    """The check above is one that can fail."""
    if not AXE.is_file():
        pytest.skip("needs what `make check-scripts` installs")
    shown(page, dashboard, "/")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    page.evaluate("""() => {
      const button = document.createElement("button");
      button.style.color = "#ccc";
      document.querySelector("main").append(button, document.createElement("img"));
    }""")
    found = {violation.split(":")[0] for violation in page.evaluate(VIOLATIONS)}
    assert {"button-name", "image-alt"} <= found


def focused(page: Any) -> str:
    """Test id, or tag, of what has the focus."""
    script = "() => document.activeElement.dataset.testid ?? document.activeElement.tagName"
    return str(page.evaluate(script))


def test_the_first_tab_leads_past_the_header(page: Any, dashboard: Dashboard) -> None:
    shown(page, dashboard, f"/r/{RUN}/overview")
    page.keyboard.press("Tab")
    assert focused(page) == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    assert page.url.endswith(f"#/r/{RUN}/overview"), "the address is still that of the page"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_the_help_keeps_the_focus_and_gives_it_back(page: Any, dashboard: Dashboard) -> None:
    shown(page, dashboard, f"/r/{RUN}/overview")
    page.get_by_test_id("help").focus()
    page.keyboard.press("Enter")
    page.get_by_test_id("help-overlay").wait_for()
    for _ in range(6):
        page.keyboard.press("Tab")
        inside = "() => document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
        assert page.evaluate(inside), "what is behind the dialog takes no focus"
    page.keyboard.press("Escape")
    page.get_by_test_id("help-overlay").wait_for(state="detached")
    assert focused(page) == "help"


def test_escape_closes_the_menu_of_columns(page: Any, dashboard: Dashboard) -> None:
    shown(page, dashboard, f"/r/{RUN}/rollouts")
    menu = page.get_by_test_id("column-choice")
    menu.locator("summary").click()
    menu.get_by_text("usual columns").wait_for()
    page.keyboard.press("Escape")
    menu.get_by_text("usual columns").wait_for(state="hidden")
    menu.locator("summary").click()
    page.get_by_test_id("total").click()
    menu.get_by_text("usual columns").wait_for(state="hidden")


def test_a_chart_is_read_by_keys_and_as_a_table(page: Any, dashboard: Dashboard) -> None:
    shown(page, dashboard, f"/r/{RUN}/overview")
    chart = page.get_by_test_id("chart-entropy")
    box = chart.locator(".chart-box")
    box.locator("canvas").wait_for()
    box.focus()
    assert box.get_attribute("aria-valuetext").startswith("step 39: learner ")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    until(page, lambda: box.get_attribute("aria-valuetext").startswith("step 38: "), "one to the left")
    assert chart.locator(".chart-place").inner_text() == "step 38"
    page.keyboard.press("Home")
    until(page, lambda: chart.locator(".chart-place").inner_text() == "step 0", "the first step")
    chart.get_by_test_id("as-table").click()
    rows = chart.get_by_test_id("chart-table").locator("tbody tr")
    assert rows.count() == 40
    assert rows.first.locator("td").first.inner_text() == "39"
    chart.get_by_test_id("as-table").click()
    box.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: url.endswith("/step/train/39"))


def test_who_listens_is_told_how_the_run_is(page: Any, dashboard: Dashboard) -> None:
    shown(page, dashboard, f"/r/{RUN}/overview")
    until(page, lambda: page.get_by_test_id("announced").inner_text() == "run finished, 40 steps", "told")


def test_nothing_is_said_before_it_is_known(page: Any, dashboard: Dashboard, complaints: Complaints) -> None:
    """While a run is read for the first time, no page says that there is nothing; what is being opened is no error."""
    answered = []

    def opening(route: Any) -> None:
        answered.append(route.request.url)
        if len(answered) <= 8:
            route.fulfill(status=503, json={"error": "the run 'healthy' is still being opened; ask again in a moment"})
        else:
            route.continue_()

    complaints.expect("status of 503")  # Chromium notes it in the console
    page.route(f"**/api/runs/{RUN}**", opening)
    page.goto(dashboard.url(f"/r/{RUN}/overview"))
    page.get_by_test_id("loading").wait_for()
    page.get_by_test_id("frame-loading").wait_for()
    said = page.locator("#app").inner_text()
    assert "no steps yet" not in said
    assert "step –" not in said
    assert page.get_by_role("alert").count() == 0
    page.get_by_test_id("chart-reward").wait_for()
    page.get_by_test_id("progress").wait_for()


def test_the_largest_gap_opens_on_its_token(page: Any, dashboard: Dashboard) -> None:
    shown(page, dashboard, f"/r/{RUN}/rollouts")
    page.get_by_test_id("views").get_by_text("largest gap").click()
    page.wait_for_url(lambda url: "max_gap" in url)
    wanted = rollouts(dashboard.origin, RUN, filter="gap>=0", sort="-max_gap", limit=1)["rows"][0]["max_gap"]
    first = page.locator('[data-testid=rollout-row][data-index="0"]')
    until(page, lambda: f"{wanted:.3g}" in first.inner_text(), "sorted")
    first.click()
    page.get_by_test_id("legend").get_by_text("|log p(learner)").wait_for()
    page.locator(".tk-cur").wait_for()
    assert page.get_by_test_id("outliers").locator("button.active").inner_text().split()[-1] == f"{wanted:.3g}"


@pytest.mark.parametrize("place", ["overview", "ledger", "config"])
def test_a_phone_shows_which_page_is_open(page: Any, dashboard: Dashboard, place: str) -> None:
    page.set_viewport_size(PHONE)
    shown(page, dashboard, f"/r/{RUN}/{place}")
    link = page.get_by_test_id(f"nav-{place}").bounding_box()
    assert link["x"] >= 0, link
    assert link["x"] + link["width"] <= PHONE["width"], link


def test_a_phone_shows_the_whole_verdict(page: Any, dashboard: Dashboard) -> None:
    page.set_viewport_size(PHONE)
    shown(page, dashboard, f"/r/{RUN}/overview")
    assert page.locator(".verdict").inner_text().count("points") == 1
    hidden = page.locator(".verdict *").evaluate_all(
        "all => all.filter(one => getComputedStyle(one).overflow === 'hidden').map(one => one.textContent)"
    )
    assert hidden == [], "what is too long is cut off"
