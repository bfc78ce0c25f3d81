"""The pictures of docs/images: every page, light and dark, of a seeded demo run. `make images` takes them anew."""

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.browser.conftest import CHROMIUM, CHROMIUM_ARGUMENTS, Dashboard, start_dashboard
from tests.cluster.dashboard.demo_runs import main as write_demo_runs

FOLDER = Path(__file__).parents[2] / "docs" / "images"
RUN = "healthy"
STEP = 22
SETTLED_MS = 1500.0
"""After the page has what it waits for: charts are drawn in the frames after that."""


def views(dashboard: Dashboard, group: str) -> dict[str, str]:
    """Name of the picture -> address."""
    here = f"/r/{RUN}"
    return {
        "runs": "/",
        "overview": f"{here}/overview",
        "step": f"{here}/step/train/{STEP}",
        "rollouts": f"{here}/rollouts?filter=len%3E40%20%26%20!correct&sort=-max_gap",
        "group": f"{here}/group/train/{STEP}/{group}?order=reward",
        "tokens": f"{here}/rollout/train/{STEP}/{group}/0?colour=advantage&t=9",
        "timeline": f"{here}/timeline?from={STEP - 2}&to={STEP + 2}",
        "fleet": "/r/slow_sampler/fleet",
        "ledger": f"{here}/ledger",
        "compare": f"/compare?runs={RUN},entropy_collapse",
        "doctor": "/r/stale_weights/doctor",
        "config": f"{here}/config",
    }


def mixed_group(page: Any, dashboard: Dashboard) -> str:
    """A trained group whose answers are half right: there is something to compare."""
    answer = page.request.get(f"{dashboard.origin}/api/runs/{RUN}/steps/train/{STEP}").json()
    groups = [group for group in answer["groups"] if group["status"] == "trained"]
    return str(min(groups, key=lambda group: abs(group["num_correct"] - len(group["cells"]) / 2))["group_id"])


def take(page: Any, path: Path) -> None:
    """256 colours are enough for flat pages, and a third of the bytes."""
    from PIL import Image

    image = Image.open(io.BytesIO(page.screenshot()))
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        runs = Path(folder) / "runs"
        write_demo_runs([str(runs)])
        dashboard = start_dashboard(runs, Path(folder) / "log")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_ARGUMENTS))
        try:
            for theme in ("light", "dark"):
                page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme=theme)
                for name, fragment in views(dashboard, mixed_group(page, dashboard)).items():
                    page.goto(dashboard.url(fragment))
                    page.wait_for_timeout(SETTLED_MS)
                    take(page, FOLDER / f"{name}-{theme}.png")
                    print(f"{name}-{theme}", file=sys.stderr)
                page.close()
        finally:
            browser.close()
            dashboard.stop()


if __name__ == "__main__":
    main()
