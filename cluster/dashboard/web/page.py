"""The page's own files: which there are, the HTML around them, and the content policy that fits both.

Every module of the page is imported by a bare name ("preact", "shoal/app.js") that an import map resolves: to addresses
of this server here, to data: URLs in an exported report, which therefore runs the same files.
"""

import base64
import gzip
import hashlib
import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from urllib.parse import quote

STATIC = Path(__file__).parents[1] / "static"
LIBRARIES = {
    "preact": "vendor/preact.mjs",
    "preact/hooks": "vendor/preact-hooks.mjs",
    "htm": "vendor/htm.mjs",
    "uplot": "vendor/uPlot.mjs",
}
"""Name in an import -> file."""
ENTRY = "shoal/app.js"
TYPES = {".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8", ".css": "text/css"}
HIDE_TOKEN = 'if (location.search) history.replaceState(null, "", location.pathname + location.hash);'
"""Takes the token out of the address before anything else runs; the state of the page is in the fragment."""
COMMENT = re.compile(r"^[ \t]*(?://[^\n]*\n|/\*\*(?:(?!\*/).)*\*/[ \t]*\n)", re.MULTILINE | re.DOTALL)
COMMON_POLICY = "base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What is sent of a file."""

    plain: bytes
    gzipped: bytes
    etag: str


class StaticFile:
    """One file of the page. It is read again when it was changed, so that an upgrade or an edit needs no restart."""

    def __init__(self, path: Path) -> None:
        self.media_type = TYPES[path.suffix]
        self._path = path
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._content: Content | None = None

    def read(self) -> Content:
        """Raises OSError when the file has gone."""
        stat = self._path.stat()
        with self._lock:
            if self._content is None or (stat.st_mtime_ns, stat.st_size) != self._stamp:
                plain = _sent(self._path)
                etag = f'"{hashlib.sha256(plain).hexdigest()[:20]}"'
                self._content = Content(plain=plain, gzipped=gzip.compress(plain, 9, mtime=0), etag=etag)
                self._stamp = (stat.st_mtime_ns, stat.st_size)
            return self._content


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An HTML document with the value of its Content-Security-Policy."""

    html: str
    policy: str


def static_names(folder: Path = STATIC) -> list[str]:
    """Names of the scripts and style sheets below the folder, as in "vendor/preact.mjs", sorted."""
    paths = (path for path in folder.rglob("*") if path.suffix in TYPES and path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def static_files(folder: Path = STATIC) -> dict[str, StaticFile]:
    """Name -> file, all there are: a request can name one of these and reaches no other path."""
    return {name: StaticFile(folder / name) for name in static_names(folder)}


def served_page(folder: Path = STATIC) -> Page:
    """The document that the server sends. Addresses are relative, so that it works behind a proxy with a prefix."""
    names = static_names(folder)
    imports = {name: f"./static/{file}" for name, file in LIBRARIES.items()} | {"shoal/": "./static/"}
    import_map = json.dumps({"imports": imports}, indent=1)
    head = [f'<link rel="stylesheet" href="./static/{name}">' for name in style_sheets(names)]
    head.append(f'<script type="importmap">{import_map}</script>')
    # Without these the browser learns of each module from the one before it: a round trip for each level of imports.
    scripts = [name for name in names if not name.endswith(".css")]
    head += [f'<link rel="modulepreload" href="./static/{name}">' for name in scripts]
    head.append(f"<script>{HIDE_TOKEN}</script>")
    body = f'<script type="module" src="./static/{ENTRY.removeprefix("shoal/")}"></script>'
    scripts_allowed = f"script-src 'self' {hash_source(import_map)} {hash_source(HIDE_TOKEN)}"
    policy = (
        f"default-src 'none'; {scripts_allowed}; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        f"{COMMON_POLICY}; frame-ancestors 'none'"
    )
    return Page(html=_filled(folder, head, [body]), policy=policy)


def report_page(answers: Mapping[str, object], *, title: str, run: str, folder: Path = STATIC) -> Page:
    """One document with everything in it: modules as data: URLs, styles, and the API's answers by their address.

    Nothing is fetched (the policy has no `connect-src`), and no script runs but these.
    """
    names = static_names(folder)
    imports = {name: _data_url(folder / file) for name, file in LIBRARIES.items()}
    imports |= {f"shoal/{name}": _data_url(folder / name) for name in names if name.endswith(".js")}
    import_map = json.dumps({"imports": imports})
    # Before the modules run: a report opened without a fragment begins at its run, not at a list of one.
    begin = f"location.hash ||= {_harmless(json.dumps('#/r/' + quote(run, safe='')))};"
    start = f'import "{ENTRY}";'
    styles = "\n".join((folder / name).read_text(encoding="utf-8") for name in style_sheets(names))
    # `data:` is needed for the modules of the map, which no hash can name. No other data: script can come in: the map
    # is fixed by its hash, and text from the run is only ever set as text.
    allowed = f"script-src data: {hash_source(import_map)} {hash_source(begin)} {hash_source(start)}"
    policy = f"default-src 'none'; {allowed}; style-src {hash_source(styles)}; img-src data:; {COMMON_POLICY}"
    report = json.dumps(answers, separators=(",", ":"), allow_nan=False)
    head = [
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        f"<style>{styles}</style>",
        f'<script type="importmap">{import_map}</script>',
        f"<script>{begin}</script>",
    ]
    body = [
        f'<script type="application/json" id="report">{_harmless(report)}</script>',
        f'<script type="module">{start}</script>',
    ]
    return Page(html=_filled(folder, head, body, title=title), policy=policy)


def without_comments(source: str) -> str:
    """A script without the comments that have lines to themselves: they are a tenth of it, gzip or not.

    Lines stay where they are, so that an error in the browser names the line of the source.
    """
    return COMMENT.sub(lambda match: "\n" * match[0].count("\n"), source)


def style_sheets(names: Sequence[str]) -> list[str]:
    """Those of the libraries, then style.css with what all pages share, then the pages' own: later ones override."""
    sheets = [name for name in names if name.endswith(".css")]
    return sorted(sheets, key=lambda name: (not name.startswith("vendor/"), name != "style.css", name))


def hash_source(text: str) -> str:
    """The source expression that allows exactly this inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _filled(folder: Path, head: Sequence[str], body: Sequence[str], *, title: str = "Shoal") -> str:
    """The HTML with what belongs to its marks. Split first: what is put in may hold a mark itself."""
    html = (folder / "index.html").read_text(encoding="utf-8")
    before, rest = html.split("<!--head-->")
    between, after = rest.split("<!--body-->")
    before = before.replace("<title>Shoal</title>", f"<title>{escape(title)}</title>")
    return "".join((before, "\n".join(head), between, "\n".join(body), after))


def _harmless(text: str) -> str:
    """JSON that cannot end its script element or begin a comment in it, whatever text it holds."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _sent(path: Path) -> bytes:
    """A file as it is sent: our scripts without comments; the libraries as they are, with their licence notes."""
    if path.suffix != ".js":
        return path.read_bytes()
    return without_comments(path.read_text(encoding="utf-8")).encode()


def _data_url(path: Path) -> str:
    return f"data:text/javascript;base64,{base64.b64encode(_sent(path)).decode()}"
