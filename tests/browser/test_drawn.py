"""Markdown and LaTeX of a completion, drawn: what is read of it, and that nothing of it becomes more than text."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.configuration.loading import load_config
from cluster.record.run_directory import RunDirectory
from tests.browser.answers import wait_for_index
from tests.browser.conftest import Complaints, Dashboard, start_dashboard
from tests.browser.test_rollout_modules import call as call
from tests.cluster.examples import completion, ok, opened, scored

pytestmark = pytest.mark.browser

ANSWER = """Let me see.</think># The **sum**

1. first `x < 1`
2. second
   - inside

> so $\\frac{1}{2} + x^{10}$ is \\boxed{\\sqrt{3}}

```
<script>alert(1)</script>
```

\\[ a_1 \\le \\pi \\unknowncommand \\]

[link](javascript:alert(2)) <img src=x onerror=alert(3)> costs $5 and $6 \u202e<b>no</b>"""


def test_thinking_is_told_apart(call: Any) -> None:
    def parts(text: str) -> list[tuple[bool, str, bool]]:
        return [(part["thinking"], part["text"], part["open"]) for part in call("rendered/markdown", "parts", text)]

    assert parts("<think>a</think>b<think>c") == [(True, "a", False), (False, "b", False), (True, "c", True)]
    assert parts("a</think>b") == [(True, "a", False), (False, "b", False)]
    assert parts("a<think></think>") == [(False, "a", False)]
    assert parts("") == []


def test_inlines_and_blocks(call: Any) -> None:
    inlines = call("rendered/markdown", "inlines", "a **b** `c*d` $x_1$ costs $5 and $6, 2*3*4 \\(y\\) **open")
    assert [(part["kind"], part["text"]) for part in inlines] == [
        ("text", "a "),
        ("strong", "b"),
        ("text", " "),
        ("code", "c*d"),
        ("text", " "),
        ("math", "x_1"),
        ("text", " costs $5 and $6, 2"),
        ("em", "3"),
        ("text", "4 "),
        ("math", "y"),
        ("text", " **open"),
    ]
    found = call("rendered/markdown", "blocks", "# h\ntext\nmore\n\n- a\n  - b\n- c\n\n---\n```py\nx\n\n$$\n1\n$$")
    assert [block["kind"] for block in found] == ["heading", "paragraph", "list", "rule", "code"]
    assert [len(item) for item in found[2]["items"]] == [2, 1]
    assert found[4]["text"] == "x\n\n$$\n1\n$$"  # a fence without an end goes on to the end


def test_latex_loses_nothing(call: Any) -> None:
    def latex(text: str) -> Any:
        return call("rendered/latex", "latex", text)

    assert latex("\\frac{1}{2}") == [
        {"kind": "frac", "top": [{"kind": "text", "text": "1"}], "bottom": [{"kind": "text", "text": "2"}]}
    ]
    assert latex("x^2\\le\\pi") == [
        {"kind": "text", "text": "x"},
        {"kind": "sup", "parts": [{"kind": "text", "text": "2"}]},
        {"kind": "text", "text": "≤π"},
    ]
    assert latex("\\foo{a} \\constructor") == [
        {"kind": "text", "text": "\\foo"},
        {"kind": "text", "text": "a \\constructor"},
    ]
    for broken in ("{" * 500, "\\frac", "\\sqrt[", "^", "\\", "}}}", "\\boxed{" * 300):
        latex(broken)


TAKEN = """async (text) => {
  const { parts, blocks } = await import("shoal/rendered/markdown.js");
  const begun = performance.now();
  parts(text);
  blocks(text);
  return performance.now() - begun;
}"""


def test_hostile_text_costs_no_more_than_long_text(call: Any, page: Any) -> None:
    assert call("rendered/markdown", "parts", "") == []  # the page is there
    repeated = ("*", "$a", "`", "> ", "- ", "\\boxed{", "<think>", "$$", "\\[", "\\[\n", "> \\[\n")
    texts = [text * (60_000 // len(text)) for text in repeated]
    for text in (*texts, "# x" + " " * 120_000 + "x"):
        taken_ms = page.evaluate(TAKEN, text)
        assert taken_ms < 3000, f"{text[:10]}: {taken_ms} ms"


def test_headings_and_displayed_math_end_where_they_did(call: Any) -> None:
    for heading in ("# a ##", "# a   ##  ", "# a", "#   a "):
        (block,) = call("rendered/markdown", "blocks", heading)
        assert block["inlines"] == [{"kind": "text", "text": "a"}], heading
    (block,) = call("rendered/markdown", "blocks", "\\[\n" + "1 +\n" * 150 + "1\n\\]")
    assert (block["kind"], block["text"].count("1 +")) == ("math", 150)


@pytest.fixture
def drawn(tmp_path: Path) -> Iterator[Dashboard]:
    """A run with one completion."""
    run = RunDirectory.create(tmp_path / "runs" / "a", load_config("tiny"))
    run.write_rollouts(0, [opened(scored(0, [ok(1.0)], [completion(0, text=ANSWER)]))])
    dashboard = start_dashboard(tmp_path / "runs", tmp_path / "dashboard.log")
    yield dashboard
    dashboard.stop()
    shutil.rmtree(tmp_path / "runs")


def test_a_completion_is_drawn_of_text_alone(drawn: Dashboard, page: Any, complaints: Complaints) -> None:
    complaints.allowed_origins.add(drawn.origin)
    wait_for_index(drawn.origin, "a")
    group = scored(0, [ok(1.0)]).group_id
    page.goto(drawn.url(f"/r/a/rollout/train/0/{group}/0"))
    page.get_by_test_id("rollout-tabs").get_by_text("Drawn").click()
    shown = page.get_by_test_id("rendered")
    shown.wait_for()
    assert shown.get_by_role("heading").inner_text() == "The sum"
    assert shown.locator("strong").inner_text() == "sum"
    assert shown.locator("ol > li").count() == 2
    assert shown.locator("ol ul > li").inner_text().strip() == "inside"
    assert shown.locator("blockquote .md-frac").count() == 1
    assert shown.locator("blockquote .md-box .md-sqrt").count() == 1
    assert shown.locator("pre").inner_text() == "<script>alert(1)</script>"
    assert "≤ π \\unknowncommand" in shown.locator(".md-display").inner_text()
    assert shown.locator("a, img, script, b").count() == 0
    assert "[link](javascript:alert(2)) <img src=x onerror=alert(3)> costs $5 and $6" in shown.inner_text()
    assert "\u202e" not in shown.inner_text()
    thinking = page.get_by_test_id("thinking")
    assert not thinking.evaluate("element => element.open")
    thinking.locator("summary").click()
    thinking.get_by_text("Let me see.").wait_for()
