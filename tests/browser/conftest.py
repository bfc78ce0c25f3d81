"""A dashboard over demo runs, and a headless Chromium that fails a test on anything that a user should not meet."""

import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REPOSITORY = Path(__file__).parents[2]
START_DEADLINE_S = 60.0
ACTION_DEADLINE_MS = 20_000.0
"""For each wait of a test: generous, as two cores may be busy with other tests."""
CHROMIUM_ARGUMENTS = (
    "--no-sandbox",  # tests run as root in containers, where Chromium's own sandbox cannot start
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # Without these, Chromium itself asks hosts on the internet.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(folder) and item.get_closest_marker("browser") and CHROMIUM is None:
            item.add_marker(pytest.mark.skip(reason="no Chromium here: install Debian's package chromium"))


@dataclass
class Dashboard:
    """A `shoal dashboard` process."""

    process: "subprocess.Popen[str]"
    origin: str
    folder: Path
    """Of its runs."""
    log: Path

    @property
    def runs(self) -> list[str]:
        """Names of the run directories."""
        return sorted(path.parent.name for path in self.folder.glob("*/config.yaml"))

    def url(self, fragment: str = "/") -> str:
        """Address of a view, as url("/r/healthy/overview")."""
        return f"{self.origin}/#{fragment}"

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=10)


def start_dashboard(folder: Path, log: Path) -> Dashboard:
    """Starts one on a free port of loopback and waits until it answers at the address that it prints."""
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.cli", "dashboard", str(folder), "--port", "0"],
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=REPOSITORY,
        )
    dashboard = Dashboard(process=process, origin="", folder=folder, log=log)
    deadline = time.monotonic() + START_DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
        printed = re.search(r"^(http://\S+?)/?$", log.read_text(), re.MULTILINE)
        if printed is None:
            continue
        dashboard.origin = printed[1]
        try:
            with urllib.request.urlopen(f"{dashboard.origin}/api/runs", timeout=5):
                return dashboard
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            continue
    dashboard.stop()
    raise AssertionError(f"the dashboard did not start: {log.read_text()}")


@pytest.fixture(scope="session")
def demo_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the five demo runs: healthy, entropy_collapse, stale_weights, broken_grader, slow_sampler."""
    folder = tmp_path_factory.mktemp("demo")
    subprocess.run(
        [sys.executable, "-m", "tests.cluster.dashboard.demo_runs", str(folder)],
        check=True,
        timeout=300,
        cwd=REPOSITORY,
    )
    return folder


@pytest.fixture(scope="session")
def dashboard(demo_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard over the demo runs."""
    running = start_dashboard(demo_runs, tmp_path_factory.mktemp("log") / "dashboard.log")
    yield running
    running.stop()


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of the package; each page has a context of its own. It ends with the package: while
    Playwright is there its event loop counts as running, and no other test could have one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_ARGUMENTS))
        yield chromium
        chromium.close()


@dataclass
class Complaints:
    """What a page did that it must not do."""

    texts: list[str]
    allowed_origins: set[str]
    expected: list[str] = field(default_factory=list)

    def expect(self, pattern: str) -> None:
        """From now on a console message in which the regular expression is found is no complaint. Said before what
        provokes it: the browser may report it at any time until the page is closed."""
        self.expected.append(pattern)

    def watch(self, page: Any) -> None:
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.texts.append(f"exception: {error}"))
        page.on("request", self._on_request)
        page.on("dialog", self._on_dialog)

    def _on_console(self, message: Any) -> None:
        foreseen = any(re.search(pattern, message.text) for pattern in self.expected)
        if message.type in ("error", "warning") and not foreseen:
            where = message.location["url"]
            self.texts.append(f"console {message.type}: {message.text} ({where})")

    def _on_request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("data", "blob", "file") or f"{parts.scheme}://{parts.netloc}" in self.allowed_origins:
            return
        self.texts.append(f"request to elsewhere: {request.url}")

    def _on_dialog(self, dialog: Any) -> None:
        self.texts.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def complaints(dashboard: Dashboard) -> Complaints:
    """Errors, warnings, dialogs and foreign requests of the pages of a test; a test that provokes one expects it."""
    return Complaints(texts=[], allowed_origins={dashboard.origin})


@pytest.fixture
def page(browser: Any, complaints: Complaints) -> Iterator[Any]:
    """A Playwright page, 1440 x 900. Fails its test for an error in the console, a violation of the content policy, a
    dialog, or a request to another origin."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(ACTION_DEADLINE_MS)
    opened = context.new_page()
    complaints.watch(opened)
    yield opened
    context.close()
    assert not complaints.texts, complaints.texts
