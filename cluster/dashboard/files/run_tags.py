"""Tags of a run, a note, and whether it is archived: `tags.json` in its folder, which no run reads."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.dashboard.files.annotations import AnnotationError
from cluster.dashboard.files.tail import open_inside
from cluster.record.append_log import write_atomically
from cluster.run_files import TAGS

MAX_TAGS, MAX_TAG, MAX_NOTE = 20, 40, 1000
"""Tags of a run; characters of one, and of the note."""
_MAX_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTags:
    """What people say of a whole run."""

    tags: tuple[str, ...] = ()
    """Sorted, each once."""
    note: str | None = None
    archived: bool = False
    """Not shown among the others."""

    def __post_init__(self) -> None:
        if len(self.tags) > MAX_TAGS:
            raise AnnotationError(f"there are {len(self.tags)} tags, allowed: {MAX_TAGS}")
        for tag in self.tags:
            if not 0 < len(tag) <= MAX_TAG or not tag.isprintable() or "," in tag:
                raise AnnotationError(
                    f"the tag {tag!r} is none: 1 to {MAX_TAG} characters, no comma, none that is unseen"
                )
        if self.note is not None and len(self.note) > MAX_NOTE:
            raise AnnotationError(f"the note has {len(self.note)} characters, allowed: {MAX_NOTE}")


def read_tags(run: Path) -> RunTags:
    """What is noted of a run; nothing where the file is missing or none of ours."""
    try:
        with open_inside(run / TAGS) as file:
            value: Any = json.loads(file.read(_MAX_BYTES))
        tags, note = value.get("tags", []), value.get("note")
        return RunTags(
            tags=tuple(sorted({str(tag) for tag in tags})),
            note=None if note is None else str(note),
            archived=value.get("archived") is True,
        )
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, AnnotationError):
        return RunTags()


def write_tags(run: Path, tags: RunTags) -> None:
    """Replaces what was noted. Raises RunWriteError."""
    write_atomically(run / TAGS, json.dumps(asdict(tags)).encode() + b"\n")


def tags_info(run: Path) -> dict[str, Any]:
    """As a part of RunInfo."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(read_tags(run)).items()}
