"""Imports of large libraries without the garbage collector going through all that they make."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading_modules() -> Iterator[None]:
    """Around imports alone, such as that of vLLM: its modules are hundreds of thousands of objects that live as long as
    the process.

    The collector would go through them again and again, which is a fifth of the import, and half a second of each full
    collection later: vLLM asks for five of those when an engine starts. Afterwards everything that is alive counts as
    permanent (`gc.freeze`), also garbage in cycles, which is why nothing large is made here.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # or extensions report at the end that what they made has leaked
        if was_enabled:
            gc.enable()
