"""Every page in four widths, light and dark, as one picture for each: to be looked at after a change of style.

python -m tests.browser.take_sheets FOLDER            # 21 pictures, some minutes
python -m tests.browser.take_sheets FOLDER timeline   # those whose address has the word
"""

import io
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.browser.conftest import CHROMIUM, CHROMIUM_ARGUMENTS, start_dashboard
from tests.browser.test_every_page import PAGES, shown
from tests.cluster.dashboard.demo_runs import main as write_demo_runs

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTHS = (390, 1280, 1440, 2560)
HEIGHTS = {390: 844, 1280: 800, 1440: 900, 2560: 1440}
SCALED = 640
"""Pixels of each screen's width on the sheet; a phone keeps its own."""
SETTLED_MS = 800.0


def sheet(screens: "list[list[Image]]") -> "Image":
    """Rows of screens, side by side."""
    from PIL import Image

    rows = [[screen.resize(_size(screen)) for screen in row] for row in screens]
    width = max(sum(screen.width for screen in row) for row in rows)
    made = Image.new("RGB", (width, sum(max(screen.height for screen in row) for row in rows)), "grey")
    top = 0
    for row in rows:
        left = 0
        for screen in row:
            made.paste(screen, (left, top))
            left += screen.width
        top += max(screen.height for screen in row)
    return made


def _size(screen: "Image") -> tuple[int, int]:
    factor = min(1.0, SCALED / screen.width)
    return round(screen.width * factor), round(screen.height * factor)


def screen_of(browser: Any, dashboard: Any, address: str, width: int, theme: str) -> "Image":
    """One page as it is first seen."""
    from PIL import Image

    page = browser.new_page(viewport={"width": width, "height": HEIGHTS[width]}, color_scheme=theme)
    try:
        shown(page, dashboard, address)
        page.wait_for_timeout(SETTLED_MS)
        return Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    finally:
        page.close()


def main() -> None:
    """Writes the pictures."""
    from playwright.sync_api import sync_playwright

    folder, word = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        runs = Path(place) / "runs"
        write_demo_runs([str(runs)])
        dashboard = start_dashboard(runs, Path(place) / "log")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_ARGUMENTS))
        try:
            for number, address in enumerate(PAGES):
                if word in address:
                    screens = [
                        [screen_of(browser, dashboard, address, width, theme) for width in WIDTHS]
                        for theme in ("light", "dark")
                    ]
                    sheet(screens).save(folder / f"{number:02}.png")
                    print(f"{number:02} {address}", file=sys.stderr)
        finally:
            browser.close()
            dashboard.stop()


if __name__ == "__main__":
    main()
