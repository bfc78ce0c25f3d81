"""`shoal rollouts RUN`: the completions that pass a filter, as a table in the terminal or as a file."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cluster.dashboard.exports.sql import write_table
from cluster.dashboard.files.annotations import AnnotationError, address_of
from cluster.dashboard.files.encoding import visible
from cluster.dashboard.selection.export import Asked, Export, open_export
from cluster.dashboard.selection.writers import FORMATS, Format
from cluster.dashboard.views.runs import is_run
from cluster.record.append_log import replacing
from cluster.run_files import ROLLOUTS
from rollout.errors import ConfigError, ShoalError

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

LISTED_ROWS = 40
"""Of a table in the terminal; a file has them all."""
LISTED = ("phase", "step", "group_id", "sample_index", "reward", "correct", "finish", "length", "answer", "truth")


class ExportError(ShoalError):
    """A file that cannot be written."""


@contextlib.contextmanager
def opened_run(run: Path) -> Iterator["RunStore"]:
    """The run with all that is in its folder now. Raises ConfigError for what is no run."""
    from cluster.dashboard.index.store import RunStore

    if not is_run(run):
        raise ConfigError(f"{run} is no run: it has none of a run's files; give the folder that `shoal train` made")
    with contextlib.closing(RunStore(run)) as store:
        store.refresh()
        yield store


def format_of(out: Path) -> Format:
    """By the name's ending. Raises ConfigError for any other, and for a folder."""
    if out.is_dir():
        raise ConfigError(f"{out} is a folder; name the file, as in -o {out}/rollouts.jsonl")
    for format in FORMATS:
        if out.suffix == f".{format}":
            return format
    allowed = ", ".join(f".{format}" for format in FORMATS)
    raise ConfigError(f"{out} has the ending {out.suffix!r}, by which the format is chosen; allowed: {allowed}")


def export_command(run: Path, asked: Asked, out: Path) -> None:
    """Writes the selection to a file, whole or not at all, and says what is in it.

    Raises ConfigError, SelectionError, FilterError, ExportError.
    """
    with opened_run(run) as store:
        _warn_of_left_out(store)
        export = open_export(store, asked)
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            with replacing(out) as file:
                for part in export.parts:
                    file.write(part)
        except OSError as error:
            cause = error.__cause__ or error
            raise ExportError(f"cannot write {out}: {getattr(cause, 'strerror', None) or cause}") from error
        num_bytes = out.stat().st_size
    print(f"{out}: {_what(export, asked)}, {num_bytes / 1e6:.1f} MB")
    if asked.shape != "rollouts" and export.num_truncated:
        print(
            f"shoal: {export.num_truncated} of the {export.num_rollouts} completions were cut at the limit of tokens; "
            "add & !truncated to the filter to leave them out",
            file=sys.stderr,
        )


def list_command(run: Path, filter_text: str, out: IO[str]) -> None:
    """Prints the first rows of the selection, and how many there are. Raises ConfigError, FilterError."""
    with opened_run(run) as store:
        _warn_of_left_out(store)
        page = store.query(filter_text, "", 0, LISTED_ROWS)
        write_table(LISTED, [[getattr(row, name) for name in LISTED] for row in page.rows], out)
        more = f", the first {len(page.rows)} are above; -o FILE writes all" if page.total > len(page.rows) else ""
        print(f"{page.total} {'rollout' if page.total == 1 else 'rollouts'}{more}", file=out)


def label_command(run: Path, address: str, changes: Mapping[str, str | bool]) -> None:
    """Changes what is noted of a completion, or prints it where nothing is to change.

    Raises ConfigError, AnnotationError for what is no completion of the run, RunWriteError.
    """
    with opened_run(run) as store:
        group, sample_index = address_of(address)
        if not any(row.sample_index == sample_index for row in store.placed_group(group)):
            raise AnnotationError(f"{run} has no completion {address}; `shoal rollouts` lists those that there are")
        before = store.annotations.of(group, sample_index)
        given: dict[str, Any] = {
            name: value if isinstance(value, bool) else value.strip() or None for name, value in changes.items()
        }
        now = replace(before, **given)
        if now != before:
            store.annotations.write(group, sample_index, now)
        shown = [f"label {now.label}"] if now.label else []
        shown += ["bookmarked"] if now.bookmarked else []
        shown += [f"note: {now.note}"] if now.note else []
        print(visible(f"{address}: {'; '.join(shown) or 'nothing is noted'}"))


def _what(export: Export, asked: Asked) -> str:
    if asked.shape.startswith("dpo"):
        return f"{export.records.num} pairs out of {export.num_rollouts} rollouts"
    return f"{export.records.num} {'rollouts' if asked.shape == 'rollouts' else 'completions'}"


def _warn_of_left_out(store: "RunStore") -> None:
    for problem in store.problems():
        if problem.file.startswith(ROLLOUTS):
            print(f"shoal: {problem.file} was left out: {problem.message}", file=sys.stderr)
