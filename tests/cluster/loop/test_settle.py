"""What a run's loop has behind it when it begins."""

import subprocess
import sys

SCRIPT = """
import gc, io, sys
from cluster.loop.background import settle
from cluster.record.group_table import tables_of, write_tables
settle()
before = set(sys.modules)
write_tables(io.BytesIO(), tables_of(1, []))
print(gc.get_freeze_count() > 10_000, sorted(name for name in set(sys.modules) - before if "." not in name))
"""


def test_a_table_that_is_written_within_a_run_imports_no_library() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split(maxsplit=1) == ["True", "[]\n"]
