"""Foreign text: never markup, and what the eye cannot see is named."""

from typing import Any

import pytest

from tests.browser.conftest import Dashboard

pytestmark = pytest.mark.browser
RENDER = """async ({value, props}) => {
  const [{h, render}, {Text}] = await Promise.all([import("shoal/parts/ui.js"), import("shoal/parts/text.js")]);
  document.querySelector("#probe")?.remove();
  const probe = document.createElement("div");
  probe.id = "probe";
  document.body.append(probe);
  render(h(Text, {value, ...props}), probe);
  return {
    text: probe.textContent,
    chips: [...probe.querySelectorAll(".chip")].map((chip) => chip.textContent),
    elements: [...new Set([...probe.querySelectorAll("*")].map((element) => element.tagName))].sort(),
  };
}"""


@pytest.fixture
def shown(page: Any, dashboard: Dashboard) -> Any:
    """render(value, **props) -> text, chips and elements of <Text> in a page of the dashboard."""
    page.goto(dashboard.url("/r/healthy/config"))
    page.get_by_test_id("config-page").wait_for()
    return lambda value, **props: page.evaluate(RENDER, {"value": value, "props": props})


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        '<img src=x onerror="alert(1)">',
        '<svg onload="alert(1)"><a xlink:href="javascript:alert(1)">x</a></svg>',
        "{{constructor.constructor('alert(1)')()}} ${alert(1)} #{1} <%= 1 %>",
        '"><iframe src="javascript:alert(1)"></iframe>',
        "</bdi></div><style>*{display:none}</style>",
    ],
)
def test_markup_is_text(shown: Any, hostile: str) -> None:
    found = shown(hostile)
    assert found["text"] == hostile
    assert found["elements"] == ["BDI"]


@pytest.mark.parametrize(
    ("value", "chips"),
    [
        ("a\x00b", ["NUL"]),
        ("a\u202eb\u202c", ["RLO", "PDF"]),
        ("pass\u200bword\u2060", ["ZWSP", "WJ"]),
        ("\x1b[31mred\x1b[0m", ["ESC[31m", "ESC[0m"]),
        ("\x1b]8;;http://x\x07link", ["ESC]8;;http://x"]),
        ("\x08" * 5000, ["BS ×5000"]),
        ("\U000e0041\U000e0042", ["U+E0041", "U+E0042"]),
        ("10\u00a0000\u202f000", ["NBSP", "NNBSP"]),
        ("a\u2800\u2800b\u3000c\u2009d", ["blank braille ×2", "wide blank", "U+2009"]),
        ("Z" + "\u0301" * 40, ["40 marks"]),
        ("caf\u00e9 \U0001f41f line\nbreak\ttab", []),
    ],
)
def test_what_cannot_be_seen_is_a_chip(shown: Any, value: str, chips: list[str]) -> None:
    assert shown(value)["chips"] == chips


def test_lone_surrogates_are_chips(page: Any, shown: Any) -> None:
    shown("x")
    # Made in the page: a lone surrogate does not survive the way there.
    chips = page.evaluate(
        """async () => (await import("shoal/parts/text.js")).segments("a\\ud800b\\udfff" + "\\ud83d\\udc1f")
        .filter((part) => part.chip).map((part) => part.chip)"""
    )
    assert chips == ["U+D800", "U+DFFF"]


def test_a_long_line_is_folded_and_unfolds(page: Any, shown: Any) -> None:
    found = shown("x" * 1_000_000)
    assert "show all 1,000,000 characters" in found["text"]
    assert len(found["text"]) < 21_000
    assert page.evaluate("document.querySelector('#probe').scrollWidth <= innerWidth")
    page.locator("#probe .fold").click()
    page.locator("#probe").get_by_text("show less").wait_for()
    assert page.evaluate("document.querySelector('#probe').textContent.length") >= 1_000_000


def test_a_million_control_characters_are_few_elements(page: Any, shown: Any) -> None:
    shown("\x01\x02" * 500_000)
    page.locator("#probe .fold").click()
    page.locator("#probe").get_by_text("show less").wait_for()
    assert page.locator("#probe .chip").count() <= 4000


def test_one_line_and_marks(page: Any, shown: Any) -> None:
    found = shown("first\nsecond\tthird", inline=True)
    assert found["text"] == "first↵second third"
    shown("Boxed and boxed", mark="BOXED")
    assert page.locator("#probe mark").all_inner_texts() == ["Boxed", "boxed"]


def test_titles_and_labels_name_what_cannot_be_seen(page: Any, shown: Any) -> None:
    shown("x")
    made = page.evaluate(
        """async () => {
          const {html, render} = await import("shoal/parts/ui.js");
          render(html`<p title=${"a\\u202e\\u0000b"} aria-label=${"plain"}>x</p>`, document.querySelector("#probe"));
          const {title, ariaLabel} = document.querySelector("#probe p");
          return [title, ariaLabel];
        }"""
    )
    assert made == ["a[RLO][NUL]b", "plain"]


UNWRAPPED = """async (value) => {
  const { h, render } = await import("shoal/parts/ui.js");
  await import("shoal/parts/text.js");
  document.querySelector("#probe")?.remove();
  const probe = document.createElement("div");
  probe.id = "probe";
  document.body.append(probe);
  render(h("p", { title: value }, "metric ", [value, h("option", null, value)]), probe);
  return { text: probe.textContent, title: probe.firstChild.title };
}"""


def test_text_that_reached_an_element_by_itself_hides_nothing(page: Any, shown: Any) -> None:
    """Names of metrics and options of menus are drawn without <Text>; our own blanks stay as they are."""
    assert shown("x")["text"] == "x"
    found = page.evaluate(UNWRAPPED, "math\u202e\x1b[2Jz\u00a0y")
    assert found["text"] == "metric " + 2 * "math[RLO][ESC[2J]z[NBSP]y"
    assert found["title"] == "math[RLO][ESC[2J]z[NBSP]y"
    assert page.evaluate(UNWRAPPED, "10\u00a0s")["text"] == "metric 10\u00a0s10\u00a0s"
