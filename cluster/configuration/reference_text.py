"""The keys of the configuration as text: `shoal config`, and the page `docs/configuration.md`."""

from collections.abc import Iterable, Sequence

from cluster.configuration.reference import Key

_PAGE_HEAD = """# Configuration

Every key that a recipe or an override may have. A recipe is a YAML file of these keys; on the command line they are
written with dots, as in `shoal train quickstart learner.lr=1e-5`. `N` stands for a place in a list, counted from 0.
`shoal config` prints this list, `shoal config learner.objective` a part of it, and `shoal plan RECIPE` the values that
a run would have.

The page is made from the configuration itself, by `shoal config --format markdown > docs/configuration.md`.
"""


def format_keys(keys: Sequence[Key]) -> str:
    """For a terminal: type and default of each key, and its help below."""
    lines = []
    for key in keys:
        of_kind = f" (kind {key.kind})" if key.kind is not None else ""
        default = f"; default: {key.default}" if key.default not in (None, "required") else ""
        required = "; required" if key.default == "required" else ""
        lines.append(f"{key.path}{of_kind}: {key.type}{default}{required}\n    {key.help}")
    return "\n".join(lines)


def format_page(keys: Sequence[Key]) -> str:
    """The whole configuration in Markdown: a table for each section."""
    parts = [_PAGE_HEAD, "\n", _table(key for key in keys if "." not in key.path)]
    written: dict[str, str] = {}
    for section in _sections(keys):
        places = (section.path, f"{section.path}.N", f"{section.path}.NAME")
        below = [key for key in keys if key.path.rpartition(".")[0] in places]
        table = "".join(_tables(below))
        parts.append(f"\n## {section.path}\n\n{section.help}\n\n")
        # What holds the same class elsewhere would be the same table.
        body = table.replace(f"`{section.path}.", "`")
        parts.append(f"Its keys are those of `{written[body]}`.\n" if body in written else table)
        written.setdefault(body, section.path)
    return "".join(parts)


def _sections(keys: Iterable[Key]) -> list[Key]:
    """Keys with keys below, each once: several kinds may have the same."""
    return list({key.path: key for key in keys if key.is_section}.values())


def _tables(below: Sequence[Key]) -> Iterable[str]:
    """What all kinds have, then each kind's own."""
    for kind in dict.fromkeys(key.kind for key in below):
        if kind is not None:
            yield f"\nWith `kind` {kind}:\n\n"
        yield _table(key for key in below if key.kind == kind)


def _table(keys: Iterable[Key]) -> str:
    lines = ["| key | type | default | what it does |", "| --- | --- | --- | --- |"]
    for key in keys:
        default = "" if key.default is None else key.default if key.default == "required" else f"`{key.default}`"
        lines.append(" | ".join([f"| `{key.path}`", _cell(key.type), _cell(default), f"{_cell(key.help)} |"]))
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
