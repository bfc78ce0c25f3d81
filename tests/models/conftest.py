"""The table of what was tried, printed at the end."""

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


TABLE = Table()


@pytest.fixture(scope="session")
def table() -> Table:
    return TABLE


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TABLE.rows:
        terminalreporter.section("models")
        terminalreporter.write_line(str(TABLE))
