"""The table of what was tried, printed at the end."""

from collections.abc import Iterator

import pytest


class Table:
    """A row for each model: family, layout, precision, what came of it."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, str, str]] = []

    def add(self, family: str, layout: str, dtype: str, outcome: str) -> None:
        self.rows.append((family, layout, dtype, outcome))

    def __str__(self) -> str:
        lines = [("family", "layout", "precision", "outcome (nats: largest / mean)"), ("---",) * 4, *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    made = Table()
    yield made
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and made.rows:
        reporter.write_line("")
        reporter.write_line(str(made))
