"""The page's files: the import map names what there is, nothing is loaded from elsewhere, and it is small."""

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path

from cluster.dashboard.web.page import (
    LIBRARIES,
    STATIC,
    StaticFile,
    hash_source,
    report_page,
    served_page,
    static_files,
    static_names,
    style_sheets,
    without_comments,
)

IMPORT = re.compile(
    r"""(?:^|[;\s}])(?:import|export)\b[^"'`;]*?\bfrom\s*["']([^"']+)["']|^\s*import\s*["']([^"']+)["']""", re.M
)


def test_every_import_is_a_bare_name_of_the_map() -> None:
    names = static_names()
    known = set(LIBRARIES) | {f"shoal/{name}" for name in names if name.endswith(".js")}
    seen = set()
    for name in names:
        if name.endswith(".js"):
            source = (STATIC / name).read_text(encoding="utf-8")
            seen |= {first or second for first, second in IMPORT.findall(source)}
            assert not re.search(r"\bimport\s*\(", source), f"{name}: a computed import cannot be in a report"
    assert {"preact", "shoal/parts/ui.js"} <= seen
    assert seen <= known


def test_the_scripts_are_small_and_name_no_address_elsewhere() -> None:
    sizes = {}
    for name, file in static_files().items():
        content = file.read().plain
        if not name.endswith(".css"):
            sizes[name] = len(file.read().gzipped)
            assert gzip.decompress(file.read().gzipped) == content
        if not name.startswith("vendor/"):
            for address in re.findall(rb"https?://[\w.-]+", content):
                assert address.endswith((b"w3.org", b"ui.perfetto.dev")), (name, address)
            assert b"sourceMappingURL" not in content
    assert 25_000 < sum(sizes.values()) < 175_000


def test_the_policy_allows_the_inline_scripts_by_their_hash_and_no_other() -> None:
    page = served_page()
    inline = re.findall(r"<script(?: type=\"importmap\")?>(.*?)</script>", page.html, re.S)
    allowed = re.search(r"script-src ([^;]*)", page.policy)
    assert allowed is not None
    assert sorted(allowed[1].split()) == sorted(["'self'", *map(hash_source, inline)])
    assert "unsafe" not in page.policy
    assert hash_source("a") == f"'sha256-{base64.b64encode(hashlib.sha256(b'a').digest()).decode()}'"


def test_styles_come_in_the_order_that_lets_pages_override() -> None:
    assert style_sheets(["b.css", "style.css", "vendor/z.css", "x.js"]) == ["vendor/z.css", "style.css", "b.css"]


def test_a_file_is_read_again_only_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.js"
    path.write_text("1")
    file = StaticFile(path)
    first = file.read()
    assert (first.plain, file.read()) == (b"1", first)
    path.write_text("22")
    assert file.read().plain == b"22"
    assert file.read().etag != first.etag


def test_only_scripts_and_styles_are_files_of_the_page() -> None:
    names = set(static_files())
    assert {"app.js", "style.css", "vendor/preact.mjs"} <= names
    assert all(name.endswith((".js", ".mjs", ".css")) and ".." not in name for name in names)


def test_libraries_have_their_licences() -> None:
    text = (STATIC / "vendor" / "README.md").read_text(encoding="utf-8")
    for name in (path.name for path in (STATIC / "vendor").iterdir() if path.name != "README.md"):
        assert f"`{name}`" in text, name
    for licence, phrase in (("preact", "MIT License"), ("htm", "Apache License"), ("uplot", "MIT License")):
        assert phrase in (STATIC / "vendor" / f"LICENSE.{licence}").read_text(encoding="utf-8")


def test_hostile_text_cannot_leave_the_data_of_a_report() -> None:
    hostile = "</script><script>alert(1)</script><!--<script>\u2028\ud800\0<!--body--><!--head-->"
    page = report_page({"/api/x": {"text": hostile}}, title=hostile.replace("\ud800", ""), run="</script>")
    assert "<script>alert" not in page.html
    data = re.search(r'<script type="application/json" id="report">(.*?)</script>', page.html, re.S)
    assert data is not None
    assert json.loads(data[1]) == {"/api/x": {"text": hostile}}
    page.html.encode()  # lone surrogates are escaped, so that it can be written


def test_a_report_loads_nothing() -> None:
    page = report_page({}, title="t", run="r")
    tags = re.findall(r"<(?:script|link|img|style|meta)[^>]*>", page.html)
    assert not [tag for tag in tags if re.search(r"\b(src|href)=(?!\"data:)", tag)]
    assert "connect-src" not in page.policy
    assert "'self'" not in page.policy
    imports = json.loads(re.search(r'<script type="importmap">(.*?)</script>', page.html, re.S)[1])["imports"]  # type: ignore[index]
    app = base64.b64decode(imports["shoal/app.js"].split(",")[1])
    assert app == static_files()["app.js"].read().plain


def test_comments_go_and_lines_stay() -> None:
    source = 'a; // b\n  // c\n/** d\n * e */\nconst f = "//g"; /* h */\n/** i */ j\n/** k */\n'
    assert without_comments(source) == 'a; // b\n\n\n\nconst f = "//g"; /* h */\n/** i */ j\n\n'
