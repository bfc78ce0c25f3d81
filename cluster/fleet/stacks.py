"""What every thread of a process is doing: stacks of the actors, and of the controller itself.

    start of an actor:   listen() in its process: on SIGUSR1, faulthandler writes the stacks into a nameless file
    later:               read_stacks() on the actor's node: sends the signal, reads the file through /proc

The signal handler is C code that needs neither the GIL nor the event loop, so a process that hangs in a loop of C
answers too.
"""

import asyncio
import faulthandler
import io
import os
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from typing import Any

ANSWER_DEADLINE_S = 5.0
"""Time in which a process that was sent the signal writes; more than a loaded machine takes."""
SETTLED_S = 0.2
"""The stacks are whole when nothing more was written for so long."""

_file: Any = None  # kept open: the process writes into it for as long as it lives


@dataclass(frozen=True, slots=True, kw_only=True)
class StackSource:
    """Where a process writes its stacks. The file has no name, so nothing is left behind when the process ends.

    Example:
        StackSource(node_id="5f0c...", pid=4711, descriptor=12, inode=9031)
    """

    node_id: str
    """Ray's id of the node that the process is on."""
    pid: int
    descriptor: int
    inode: int
    """Of the file: by it a process that got the pid of a dead one is told apart."""


def listen(_actor: object = None) -> StackSource:
    """Makes this process write its stacks on SIGUSR1. Runs in an actor, which is what it is called with."""
    import ray

    global _file
    if _file is None:
        _file = tempfile.TemporaryFile()  # noqa: SIM115 - open until the process ends
        faulthandler.register(signal.SIGUSR1, file=_file, all_threads=True)
    node_id = ray.get_runtime_context().get_node_id()
    inode = os.fstat(_file.fileno()).st_ino
    return StackSource(node_id=node_id, pid=os.getpid(), descriptor=_file.fileno(), inode=inode)


def read_stacks(source: StackSource) -> str:
    """The stacks of a process on this node as text; says in one sentence why when there are none."""
    path = f"/proc/{source.pid}/fd/{source.descriptor}"
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        return f"process {source.pid} is gone or cannot be read: {error.strerror}\n"
    with file:
        # SIGUSR1 ends a process that does not wait for it: it goes to nobody but who opened this very file.
        if os.fstat(file.fileno()).st_ino != source.inode:
            return f"process {source.pid} is gone, and another one has its number\n"
        start = file.seek(0, os.SEEK_END)
        try:
            os.kill(source.pid, signal.SIGUSR1)
        except OSError as error:
            return f"process {source.pid} is gone: {error.strerror}\n"
        return _written_from(file, start) or f"process {source.pid} wrote nothing within {ANSWER_DEADLINE_S:g} s\n"


def own_stacks() -> str:
    """The stacks of this process's threads, and where each of its asyncio tasks waits. Within the event loop."""
    text = io.StringIO()
    for ident, frame in sys._current_frames().items():  # noqa: SLF001  # CPython has no public name for it
        text.write(f"Thread {ident:#x} (most recent call last):\n")
        text.write("".join(traceback.format_stack(frame)))
    for task in sorted(asyncio.all_tasks(), key=lambda task: task.get_name()):
        task.print_stack(file=text)
    return text.getvalue()


def _written_from(file: Any, start: int) -> str:
    deadline, size, since = time.monotonic() + ANSWER_DEADLINE_S, start, time.monotonic()
    while time.monotonic() < deadline:
        now = file.seek(0, os.SEEK_END)
        if now != size:
            size, since = now, time.monotonic()
        elif size > start and time.monotonic() - since > SETTLED_S:
            break
        time.sleep(0.02)
    file.seek(start)
    return str(file.read().decode(errors="replace"))
