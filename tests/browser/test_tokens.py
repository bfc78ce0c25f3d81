"""One completion token by token: colours and their numbers, the card, pins, outliers, overview strip, long texts."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.dashboard.files.config_file import read_config
from tests.browser.answers import ask, wait_for_index
from tests.browser.conftest import Complaints, Dashboard, start_dashboard
from tests.browser.crafted_run import LONG_SEAM, NUM_LONG_TOKENS, STEP, craft

pytestmark = pytest.mark.browser
MODES = ("credit", "entropy", "gap", "kl", "prob", "version")


@pytest.fixture(scope="module")
def crafted(demo_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dashboard, list[str]]]:
    """A dashboard over a crafted run, and the ids of its rewritten groups."""
    folder = tmp_path_factory.mktemp("crafted")
    ids = craft(demo_runs / "stale_weights", folder / "runs" / "crafted")
    other = folder / "runs" / "other"
    shutil.copytree(folder / "runs" / "crafted", other)
    config = read_config((other / "config.yaml").read_text())
    config["learner"]["objective"] |= {
        "surrogate": {"kind": "cispo"},
        "kl": {"coef": 0.5, "place": "reward", "estimator": "k1"},
        "advantage": {"kind": "group", "scale": "none"},
    }
    (other / "config.yaml").write_text(json.dumps(config))
    running = start_dashboard(folder / "runs", folder / "dashboard.log")
    for run in ("crafted", "other"):
        wait_for_index(running.origin, run)
    yield running, ids
    running.stop()


@pytest.fixture
def open_sample(crafted: tuple[Dashboard, list[str]], page: Any, complaints: Complaints) -> Any:
    """open_sample(sample, params="", group=0) -> the page of that completion, its tokens drawn."""
    running, ids = crafted
    complaints.allowed_origins.add(running.origin)

    def opened(sample: int, params: str = "", group: int = 0, run: str = "crafted") -> Any:
        page.goto("about:blank")  # or what another completion has shown would be taken for this one
        page.goto(running.url(f"/r/{run}/rollout/train/{STEP}/{ids[group]}/{sample}{params}"))
        page.locator("[data-testid=rollout-page] [role=tab], [data-testid=rollout-tabs]").first.wait_for()
        return page

    return opened


def _token(page: Any, position: int) -> Any:
    return page.locator(f'[data-testid=tokens] [data-t="{position}"]')


def test_of_another_objective_no_clipped_term_is_shown(open_sample: Any) -> None:
    """The same tokens in a run with CISPO and the KL in the reward: A r is told, and that it is not the objective."""
    page = open_sample(1, "?colour=credit")
    legend = page.get_by_test_id("legend")
    legend.get_by_text("min(A·r, A·clip(r))").wait_for()
    page.get_by_test_id("contribution").wait_for()
    page = open_sample(1, "?colour=credit", run="other")
    legend.get_by_text("the surrogate is cispo; the KL is taken off the rewards").wait_for()
    assert legend.inner_text().startswith("A·r. A is the advantage −2")
    text = page.get_by_test_id("rollout-page").inner_text()
    for never in ("min(", "clip(", "k3 the divergence", "clipped", "summed over tokens"):
        assert never not in text.replace("largest gap", ""), never
    assert page.get_by_test_id("contribution").count() == 0
    _token(page, 2).hover()
    card = page.get_by_test_id("token-card").inner_text()
    assert "advantage × ratio" in card
    assert "−1.21" in card  # -2 exp(-0.5), not held at -1.6
    assert "clipped" not in card


def test_worked_numbers_of_a_token(open_sample: Any) -> None:
    """A = -2, clip 0.8 .. 1.2. At 2: r = exp(-0.5) = 0.607 < 0.8, so the smaller of -2 x 0.607 and -2 x 0.8 is -1.6,
    and the token is clipped. At 0: r = 1, -2. The last token is masked: 0."""
    page = open_sample(1)
    _token(page, 2).hover()
    card = page.get_by_test_id("token-card")
    text = card.inner_text()
    for wanted in ("−1.5", "0.607", "clipped: no gradient", "−1.6", "−0.5", "position 2"):
        assert wanted in text, (wanted, text)
    assert "tk-clip" in _token(page, 2).get_attribute("class")
    _token(page, 0).hover()
    card.get_by_text("not clipped").wait_for()
    assert "tk-clip" not in _token(page, 0).get_attribute("class")
    last = page.locator("[data-testid=tokens] [data-t]").last
    assert "tk-mask" in last.get_attribute("class")
    last.hover()
    page.wait_for_function(
        "() => document.querySelector('[data-testid=token-card]').innerText.includes('not trained on')"
    )
    page.mouse.move(5, 5)
    card.wait_for(state="detached")


def test_keys_1_to_6_colour_by_what_there_is(open_sample: Any) -> None:
    page = open_sample(0, "", group=1)
    levels = {}
    for number, mode in enumerate(MODES, start=1):
        page.keyboard.press(str(number))
        page.locator(f"[data-testid=legend][data-colour={mode}]").wait_for()
        page.wait_for_function("m => location.hash.includes('colour=' + m)", arg=mode)
        levels[mode] = [span.get_attribute("class") for span in page.locator("[data-testid=tokens] [data-t]").all()]
        assert len(page.get_by_test_id("legend").inner_text()) > 60, "a definition in words"
    assert len({json.dumps(one) for one in levels.values()}) == len(MODES)
    page.reload()
    page.locator("[data-testid=legend][data-colour=version]").wait_for()
    page.get_by_test_id("colouring").get_by_text("Entropy").click()
    page.locator("[data-testid=legend][data-colour=entropy]").wait_for()


def test_gap_levels_follow_a_log_scale(open_sample: Any) -> None:
    page = open_sample(1, "?colour=gap")
    _token(page, 3).wait_for()
    assert "tk-s8" in _token(page, 3).get_attribute("class")  # 2 nats: the whole scale
    share = math.log(0.5 / 0.001) / math.log(1 / 0.001)
    assert f"tk-s{round(share * 8)}" in _token(page, 2).get_attribute("class")
    assert "tk-s" not in _token(page, 0).get_attribute("class")


def test_a_click_pins_and_the_address_keeps_it(open_sample: Any) -> None:
    page = open_sample(1)
    _token(page, 3).click()
    pinned = page.get_by_test_id("pinned-token")
    pinned.wait_for()
    assert "t=3" in page.url
    assert "−3" in pinned.inner_text()
    page.reload()
    pinned.wait_for()
    assert "tk-cur" in _token(page, 3).get_attribute("class")
    page.keyboard.press("Escape")
    pinned.wait_for(state="detached")
    assert "t=3" not in page.url


def test_brackets_and_arrows_step_through_tokens(open_sample: Any) -> None:
    page = open_sample(1, "?colour=gap")
    listed = page.get_by_test_id("outliers").get_by_role("button")
    listed.first.wait_for()
    assert [text.split()[0] for text in listed.all_inner_texts()] == ["3", "2"]  # gaps of 2 and 0.5; all others agree
    for key, position in (("]", 2), ("]", 3), ("]", 2), ("[", 3)):
        page.keyboard.press(key)
        page.wait_for_function("t => location.hash.includes('t=' + t)", arg=position)
    page.get_by_test_id("tokens").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => location.hash.includes('t=4')")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => location.hash.includes('t=3')")
    listed.nth(1).click()
    page.wait_for_function("() => location.hash.includes('t=2')")


def test_the_other_samples_at_the_same_position(crafted: tuple[Dashboard, list[str]], open_sample: Any) -> None:
    page = open_sample(0, "?t=1", group=1)
    page.get_by_test_id("same-position").click()
    rows = page.get_by_test_id("same-position-table").locator("tr")
    rows.first.wait_for()
    running, ids = crafted
    group = f"runs/crafted/rollouts/train/{STEP}/{ids[1]}"
    siblings = ask(running.origin, f"{group}/0")["siblings"]
    assert rows.count() == len(siblings) - 1
    second = ask(running.origin, f"{group}/1")["tokens"]
    assert second["pieces"][1].strip() in rows.first.inner_text()


def test_what_the_learner_did_not_compute_is_said_in_words(open_sample: Any) -> None:
    page = open_sample(2, "?colour=gap")
    page.locator("[data-testid=legend][data-colour=prob]").wait_for()
    missing = page.get_by_test_id("missing").inner_text()
    assert "The advantage is zero" in missing
    assert "no Gap" in missing
    assert page.get_by_test_id("scatter").count() == 0
    page.keyboard.press("3")  # nothing to colour by: stays
    page.locator("[data-testid=legend][data-colour=prob]").wait_for()


def test_32000_tokens_stay_smooth(open_sample: Any) -> None:
    page = open_sample(0)
    _token(page, 0).wait_for()
    count = page.evaluate("document.querySelectorAll('[data-t]').length")
    assert 0 < count < 4000, f"{count} of {NUM_LONG_TOKENS} tokens drawn"
    page.keyboard.press("6")
    strip = page.get_by_test_id("minimap")
    box = strip.bounding_box()
    strip.click(position={"x": box["width"] * 0.75, "y": 20})
    wanted = int(NUM_LONG_TOKENS * 0.75)
    page.wait_for_function("t => document.querySelector(`[data-t='${t}']`) !== null", arg=wanted)
    assert page.evaluate("document.querySelectorAll('[data-t]').length") < 4000
    page.keyboard.press("]")
    page.wait_for_function("t => location.hash.includes('t=' + t)", arg=LONG_SEAM)
    _token(page, LONG_SEAM).wait_for()
    assert "tk-seam" in _token(page, LONG_SEAM).get_attribute("class")
    shown = page.evaluate(
        "t => { const r = document.querySelector(`[data-t='${t}']`).getBoundingClientRect();"
        "const b = document.querySelector('[data-testid=tokens]').getBoundingClientRect();"
        "return r.top >= b.top && r.bottom <= b.bottom; }",
        LONG_SEAM,
    )
    assert shown, "the token that was jumped to is in sight"


def test_plots_pick_a_token(open_sample: Any) -> None:
    page = open_sample(1)
    plot = page.get_by_test_id("contribution")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    plot.click(position={"x": box["width"] - 20, "y": 40})
    page.wait_for_function("() => location.hash.includes('t=7')")


def test_text_and_raw_json_are_tabs(crafted: tuple[Dashboard, list[str]], open_sample: Any) -> None:
    running, ids = crafted
    page = open_sample(0, "", group=1)
    answer = ask(running.origin, f"runs/crafted/rollouts/train/{STEP}/{ids[1]}/0")
    page.get_by_test_id("rollout-tabs").get_by_text("Text").click()
    text = page.get_by_test_id("text-tab")
    text.wait_for()
    assert answer["text"] in text.text_content()
    assert answer["prompt_text"] in text.text_content()
    page.get_by_test_id("rollout-tabs").get_by_text("Raw JSON").click()
    raw = page.get_by_test_id("raw-tab")
    raw.wait_for()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    raw.get_by_text("Copy token ids").click()
    raw.get_by_text("copied").wait_for()
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == answer["tokens"]["ids"]


def test_copying_needs_no_secure_context(crafted: tuple[Dashboard, list[str]], open_sample: Any, page: Any) -> None:
    """Over http beyond loopback a browser has no navigator.clipboard."""
    ids = crafted[1]
    page.add_init_script("""Object.defineProperty(navigator, "clipboard", { value: undefined });
      document.addEventListener("copy", () => {
        const { value, selectionStart, selectionEnd } = document.activeElement;
        window.copied = value.slice(selectionStart, selectionEnd);
      });""")
    open_sample(0, "?view=raw", group=1)
    raw = page.get_by_test_id("raw-tab")
    raw.get_by_text("Copy address").click()
    raw.get_by_text("copied").wait_for()
    assert page.evaluate("window.copied") == f"train/{STEP}/{ids[1]}/0"


def test_more_than_one_update_is_said(open_sample: Any, page: Any) -> None:
    def two_updates(route: Any) -> None:
        response = route.fetch()
        route.fulfill(response=response, json=response.json() | {"updates_per_batch": 2})

    page.route("**/api/runs/crafted/rollouts/**", two_updates)
    open_sample(1, "?colour=credit")
    page.get_by_test_id("legend").get_by_text("in the first of 2 updates").wait_for()
    _token(page, 2).hover()
    page.get_by_test_id("token-card").get_by_text("ratio, first update").wait_for()


def test_siblings_are_a_key_or_a_click_away(open_sample: Any) -> None:
    page = open_sample(1, "?colour=entropy")
    page.keyboard.press("j")
    page.wait_for_function("() => /\\/2\\?/.test(location.hash)")
    assert "colour=entropy" in page.url
    page.keyboard.press("k")
    page.wait_for_function("() => /\\/1\\?/.test(location.hash)")
    page.get_by_test_id("samples").get_by_text("3", exact=True).click()
    page.wait_for_function("() => /\\/3\\?/.test(location.hash)")
    before = page.url
    page.keyboard.press("J")
    page.wait_for_function("old => location.href !== old", arg=before)
    page.get_by_test_id("to-group").click()
    page.get_by_test_id("group-page").wait_for()


def test_hostile_tokens_are_chips_and_text(open_sample: Any) -> None:
    page = open_sample(1)
    tokens = page.get_by_test_id("tokens")
    tokens.wait_for()
    assert _token(page, 0).inner_text() == "<script>window.hacked=1</script>"
    for position, chip in ((2, "RLO"), (3, "ZWSP"), (4, "ESC[31m"), (5, "NUL")):
        assert _token(page, position).locator(".chip", has_text=chip).count() == 1, chip
    assert _token(page, 6).inner_text() == "{{7*7}}"
    assert _token(page, 7).inner_text() == "&lt;b&gt;"
    assert page.evaluate("window.hacked") is None
