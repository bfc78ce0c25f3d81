"""Every page that shows text, with text that attacks it: nothing runs, nothing is made of it, nothing is loaded, what
cannot be seen is a chip, and the page can be used on. `page` itself fails for a dialog, a console error, a request."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from cluster.dashboard.exports.report import export_report
from tests.browser.answers import ask, wait_for_index
from tests.browser.conftest import Complaints, Dashboard, start_dashboard
from tests.browser.hostile_run import LONG_STEP, OTHER, RUN, SCRIPT, write_hostile_runs
from tests.browser.waiting import until

pytestmark = pytest.mark.browser
ANSWERS_WITHIN_S = 10.0
"""Generous: other tests may be running beside."""
FOUND = r"""() => {
  const bad = [];
  for (const element of document.querySelectorAll("*")) {
    const inside = element.closest("#app") !== null && element.namespaceURI.endsWith("xhtml");
    const tag = element.tagName.toLowerCase();
    if (["base", "iframe", "object", "embed", "frame"].includes(tag)) bad.push(tag);
    if (inside && ["script", "style", "link", "meta", "img", "title"].includes(tag)) bad.push("inside: " + tag);
    // The page has one form of its own, in which a completion is labelled.
    if (inside && tag === "form" && element.dataset.testid !== "annotation") bad.push("inside: " + tag);
    if (tag === "meta" && element.httpEquiv.toLowerCase() === "refresh") bad.push("meta refresh");
    for (const {name, value} of element.attributes) {
      if (name.startsWith("on")) bad.push(`${tag}[${name}]`);
      const loads = /^(href|src|srcdoc|action|data|xlink:href)$/.test(name);
      if (loads && /^\s*(javascript:|data:text)/i.test(value)) bad.push(`${tag}[${name}=${value}]`);
      if (name === "style" && /expression|url\(/i.test(value)) bad.push(`${tag}[style]`);
    }
  }
  const hidden = /[\0-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2060\u2066-\u2069\ufeff]|\p{Cs}/u;
  const texts = document.createTreeWalker(document.querySelector("#app"), NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const { data, parentElement } = texts.currentNode;
    if (hidden.test(data)) bad.push(`as it is in ${parentElement.outerHTML.slice(0, 200)}`);
  }
  for (const element of document.querySelectorAll("#app *")) {
    for (const {name, value} of element.attributes) {
      if (/^(title|aria-label|placeholder|alt)$/.test(name) && hidden.test(value)) {
        bad.push(`as it is in ${name} of ${element.outerHTML.slice(0, 200)}`);
      }
    }
  }
  if (window.pwned !== undefined) bad.push(`payload ${window.pwned} ran`);
  if ({}.polluted !== undefined) bad.push("the prototype of objects was changed");
  return bad;
}"""
"""What of the corpus came to life, and where something invisible stands as it is."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dashboard, str]]:
    """A dashboard over the hostile runs, and the name of the one whose folder is hostile too."""
    folder = tmp_path_factory.mktemp("hostile")
    name, _ = write_hostile_runs(folder / "runs")
    running = start_dashboard(folder / "runs", folder / "dashboard.log")
    for run in (name, OTHER):
        wait_for_index(running.origin, run)
    yield running, name
    running.stop()


@pytest.fixture
def show(hostile: tuple[Dashboard, str], page: Any, complaints: Complaints) -> Any:
    """show(path, testid) -> the page at that path of the run, when its part `testid` is there."""
    running, name = hostile
    complaints.allowed_origins.add(running.origin)

    def opened(path: str, testid: str) -> Any:
        page.goto(running.url(f"/r/{quote(name, safe='')}/{path}"))
        page.get_by_test_id(testid).first.wait_for()
        return page

    return opened


@pytest.fixture
def groups(hostile: tuple[Dashboard, str]) -> list[str]:
    """Ids of the groups of LONG_STEP; the first has the long lines."""
    running, name = hostile
    return [one["group_id"] for one in ask(running.origin, f"runs/{quote(name)}/steps/train/{LONG_STEP}")["groups"]]


def expect_harmless(page: Any, *, text: str = SCRIPT, chips: bool = True) -> None:
    """Nothing ran, nothing was made; the payload is there as text, and what is invisible as chips."""
    until(page, lambda: text in page.locator("body").inner_text(), f"{text} as text")
    assert page.evaluate(FOUND) == []
    if chips:
        names = set(page.locator(".chip").all_inner_texts())
        assert names & {"RLO", "NUL", "ZWSP", "ESC[31m"}, names
    assert page.evaluate("getComputedStyle(document.querySelector('#app')).display") != "none"
    expect_narrow(page)


def expect_narrow(page: Any) -> None:
    """No name, however long, makes the page wider than the window."""
    assert page.evaluate("() => { scrollTo(10000, 0); return scrollX; }") == 0
    page.evaluate("scrollTo(0, 0)")


def expect_quick(page: Any, act: Callable[[], object], wanted: Any) -> None:
    """`wanted` is in sight within the time after the action."""
    began = time.monotonic()
    act()
    wanted.wait_for()
    assert time.monotonic() - began < ANSWERS_WITHIN_S
    assert page.evaluate(FOUND) == []


@pytest.mark.parametrize(
    "html",
    [
        "<form></form>",
        "<iframe></iframe>",
        "<img alt=x>",
        '<a href=" javascript:1">x</a>',
        '<a href="data:text/html,x">x</a>',
        "<svg onload=1></svg>",
        "<p>\u202e</p>",
        '<p title="\x01">x</p>',
    ],
)
def test_this_file_would_find_what_came_to_life(show: Any, complaints: Complaints, html: str) -> None:
    page = show("doctor", "doctor")
    assert page.evaluate(FOUND) == []
    complaints.expect("Content Security Policy")
    page.evaluate("html => document.querySelector('#app').insertAdjacentHTML('beforeend', html)", html)
    assert len(page.evaluate(FOUND)) == 1


def test_list_of_runs_and_help(show: Any, hostile: tuple[Dashboard, str], page: Any, complaints: Complaints) -> None:
    running, name = hostile
    complaints.allowed_origins.add(running.origin)
    page.goto(running.url("/"))
    page.get_by_test_id("run-row").nth(1).wait_for()
    expect_harmless(page)
    assert RUN not in page.content()
    page.get_by_test_id("runs-find").fill(SCRIPT)
    page.get_by_test_id("runs-find").fill("")
    page.get_by_test_id("help").click()
    page.get_by_test_id("help-overlay").wait_for()
    page.keyboard.press("Escape")
    row = page.get_by_test_id("run-row").filter(has_text=name)
    expect_quick(page, lambda: row.get_by_role("link").first.click(), page.get_by_test_id("overview"))


def test_overview_and_its_scrubber(show: Any) -> None:
    page = show("overview", "tiles")
    page.get_by_test_id("scrubber").wait_for()
    box = page.get_by_test_id("scrubber").bounding_box()
    for share in (0.1, 0.5, 0.9):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
    page.locator(".u-over").first.hover()
    assert page.evaluate(FOUND) == []
    expect_narrow(page)
    expect_quick(page, lambda: page.get_by_test_id("nav-doctor").click(), page.get_by_test_id("doctor"))


def test_step_and_the_card_of_a_cell(show: Any) -> None:
    page = show("step/train/1", "grid")
    expect_harmless(page, chips=False)
    page.locator("[data-cell]").nth(1).hover()
    page.get_by_test_id("cell-card").wait_for()
    expect_harmless(page)
    page.get_by_test_id("all-metrics").click()
    expect_harmless(page)
    group = page.get_by_test_id("group-link").first
    expect_quick(page, group.click, page.get_by_test_id("group-page"))


def test_step_with_the_long_lines(show: Any) -> None:
    page = show(f"step/train/{LONG_STEP}", "grid")
    for cell in range(4):
        page.locator("[data-cell]").nth(cell).hover()
        page.get_by_test_id("cell-card").wait_for()
    expect_harmless(page)
    expect_quick(page, page.locator("[data-cell]").first.click, page.get_by_test_id("rollout-page"))


def test_rollouts_with_search_and_errors_that_echo(show: Any, complaints: Complaints) -> None:
    complaints.expect("status of 400")  # Chromium notes it in the console
    page = show("rollouts", "rollouts-page")
    page.locator("[data-testid=rollout-row][data-index='0']").get_by_role("gridcell").nth(3).wait_for()
    expect_harmless(page)
    page.get_by_test_id("search").fill(SCRIPT)
    until(page, lambda: "q=" in page.url, "the search in the address")
    page.locator("[data-testid=rollout-row] mark").first.wait_for()
    expect_harmless(page)
    for text in (SCRIPT, "\u202e\u200b\x07 <img src=x onerror=window.pwned=30>", '"{{7*7}}', "${window.pwned=31}<b"):
        page.get_by_test_id("filter").fill(text)
        page.get_by_test_id("filter").press("Enter")
        page.get_by_test_id("filter-error").wait_for()
        assert page.evaluate(FOUND) == []
    page.get_by_test_id("filter").fill(f'answer="{SCRIPT}"'.replace("=1", ""))
    page.get_by_test_id("filter").press("Enter")
    page.get_by_test_id("filter-error").wait_for(state="detached")
    page.get_by_test_id("filter").fill("correct")
    page.get_by_test_id("search").fill("")
    page.get_by_test_id("filter").press("Enter")
    first = page.locator("[data-testid=rollout-row][data-index='0']").get_by_role("gridcell").nth(4)
    first.wait_for()
    expect_quick(page, first.click, page.get_by_test_id("rollout-page"))


def test_group_its_differences_and_its_neighbour(show: Any, groups: list[str]) -> None:
    page = show(f"group/train/1/{groups[0].replace('000004', '000002')}", "column")
    expect_harmless(page)
    for key in ("j", "x"):
        page.keyboard.press(key)
    page.get_by_role("button", name="compare sample 1", exact=True).click()
    expect_quick(page, lambda: page.keyboard.press("c"), page.get_by_test_id("diff-left").locator(".gr-body"))
    expect_harmless(page)
    page.get_by_test_id("diff").click()
    page.get_by_test_id("column").first.wait_for()
    expect_quick(page, page.get_by_test_id("to-tokens").first.click, page.get_by_test_id("rollout-page"))


def test_group_with_lines_of_a_million_characters(show: Any, groups: list[str]) -> None:
    page = show(f"group/train/{LONG_STEP}/{groups[0]}", "column")
    columns = page.get_by_test_id("column")
    unfold = columns.nth(1).get_by_text("show all 1,000,000 characters")
    unfold.wait_for()
    expect_harmless(page)
    expect_quick(page, unfold.click, columns.nth(1).get_by_text("show less"))
    for sample in (0, 1):
        page.get_by_role("button", name=f"compare sample {sample}", exact=True).click()
    expect_quick(page, page.get_by_test_id("diff").click, page.get_by_test_id("diff-left").locator(".gr-body"))
    expect_quick(page, lambda: page.keyboard.press("J"), page.get_by_test_id("group-page"))


@pytest.mark.parametrize("sample", [0, 1, 2, 3])
def test_tokens_text_and_raw_of_long_lines(show: Any, groups: list[str], sample: int) -> None:
    """100 000 tokens; one token of a million characters; a million control characters; the whole corpus."""
    page = show(f"rollout/train/{LONG_STEP}/{groups[0]}/{sample}", "tokens")
    token = page.locator('[data-testid=tokens] [data-t="0"]')
    token.wait_for()
    expect_quick(page, lambda: token.hover(position={"x": 3, "y": 5}), page.get_by_test_id("token-card"))
    if sample >= 2:
        expect_harmless(page)
    page.mouse.move(5, 5)
    for key in "123456":
        page.keyboard.press(key)
    tabs = page.get_by_test_id("rollout-tabs")
    expect_quick(page, lambda: tabs.get_by_text("Text", exact=True).click(), page.get_by_test_id("text-tab"))
    expect_harmless(page)  # the prompt is hostile in all of them
    expect_quick(page, lambda: tabs.get_by_text("Raw JSON").click(), page.get_by_test_id("raw-tab"))
    assert page.evaluate(FOUND) == []
    expect_quick(page, page.get_by_test_id("to-group").click, page.get_by_test_id("group-page"))


def test_timeline_with_its_card_and_panel(show: Any) -> None:
    page = show("timeline", "gantt")
    page.locator(".gantt-actor").first.wait_for()
    expect_harmless(page)
    canvas = page.get_by_test_id("gantt").locator("canvas").first
    box = canvas.bounding_box()
    places = [(share / 50, row) for share in range(1, 50, 4) for row in range(int(box["height"]) // 12)]
    for share, row in places:
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + 12 * row)
        page.wait_for_timeout(10)
        if not page.get_by_test_id("span-card").count():
            continue
        assert page.evaluate(FOUND) == []
        page.mouse.down()
        page.mouse.up()
        page.wait_for_timeout(50)
        if page.get_by_test_id("span-panel").count():  # nothing is known of a wait but who it was for
            break
    page.get_by_test_id("span-panel").wait_for()
    expect_harmless(page)
    expect_quick(page, lambda: page.get_by_test_id("nav-fleet").click(), page.get_by_test_id("fleet"))


def test_fleet(show: Any) -> None:
    page = show("fleet", "fleet")
    expect_harmless(page)
    expect_quick(page, lambda: page.get_by_test_id("nav-ledger").click(), page.get_by_test_id("ledger"))


def test_ledger_with_its_card_and_prompts(show: Any) -> None:
    page = show("ledger", "ledger")
    page.get_by_test_id("prompt").first.wait_for()
    expect_harmless(page)
    canvas = page.get_by_test_id("pixel-grid").locator("canvas")
    until(page, lambda: canvas.evaluate("canvas => canvas.width") > 300, "a drawn canvas")
    canvas.hover(position={"x": 3, "y": 3})
    page.get_by_test_id("pixel-card").wait_for()
    expect_harmless(page)
    expect_quick(page, lambda: page.get_by_test_id("nav-config").click(), page.get_by_test_id("config-page"))


def test_configuration(show: Any) -> None:
    page = show("config", "config-page")
    expect_harmless(page)
    page.get_by_test_id("config-find").fill("<script>")
    expect_harmless(page)
    page.get_by_test_id("config-find").fill("")
    view = page.get_by_test_id("config-view")
    expect_quick(page, lambda: view.locator("[data-value=file]").click(), page.get_by_test_id("config-file"))
    assert page.evaluate(FOUND) == []


def test_doctor(show: Any) -> None:
    page = show("doctor", "doctor")
    page.get_by_test_id("finding").first.wait_for()
    expect_harmless(page, chips=False)
    expect_quick(page, lambda: page.get_by_test_id("nav-overview").click(), page.get_by_test_id("overview"))


def test_compare_with_the_same_prompt_beside(hostile: tuple[Dashboard, str], page: Any, complaints: Complaints) -> None:
    running, name = hostile
    complaints.allowed_origins.add(running.origin)
    page.goto(running.url(f"/compare?runs={quote(f'{name},{OTHER}')}"))
    page.get_by_test_id("figures").wait_for()
    expect_harmless(page)
    prompt = page.get_by_test_id("shared-prompt").first
    expect_quick(page, prompt.click, page.get_by_test_id("beside").first)
    expect_harmless(page)
    expect_quick(page, lambda: page.get_by_test_id("nav-runs").click(), page.get_by_test_id("runs-page"))


def test_report_opened_from_the_disk(
    hostile: tuple[Dashboard, str], groups: list[str], page: Any, complaints: Complaints, tmp_path: Path
) -> None:
    running, _ = hostile
    report = tmp_path / "report <script> #1.html"
    export_report(running.folder / RUN, report)
    source = report.read_text()
    assert SCRIPT not in source
    assert source.count("</script") == source.count("<script"), "no text ends a script early"
    for path, testid in {
        "overview": "tiles",
        "step/train/1": "grid",
        "rollouts": "rollouts-page",
        f"group/train/{LONG_STEP}/{groups[1]}": "column",
        f"rollout/train/{LONG_STEP}/{groups[1]}/0": "tokens",
        "timeline": "gantt",
        "fleet": "fleet",
        "ledger": "ledger",
        "doctor": "doctor",
        "config": "config-page",
    }.items():
        names = {one["run"] for one in ask(running.origin, "runs")["runs"]} - {OTHER}
        run = quote(names.pop(), safe="")
        page.goto(f"{report.as_uri()}#/r/{run}/{path}")
        page.get_by_test_id(testid).first.wait_for()
        if path not in ("overview", "timeline"):
            expect_harmless(page, chips=path not in ("doctor", "step/train/1"))
        assert page.evaluate(FOUND) == [], path
