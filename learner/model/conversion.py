"""A GGUF file -> a Hugging Face directory, in a process of its own.

It takes 1.5 GB that the run can use afterwards, and what the libraries write meanwhile is not shown but read, for how
far they are.

    python -m learner.model.conversion FILE.gguf DIRECTORY
"""

import os
import re
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rollout.errors import ModelError
from rollout.module_loading import SAFE_PYTHON, python_path

STAGES = {"import": (0.0, 0.3), "read": (0.3, 0.8), "write": (0.8, 1.0)}
"""Shares of the whole time, as measured for 135 million parameters on two cores."""
_STAGE = re.compile(r"stage:(\w+)")
_PERCENT = re.compile(r"(\d{1,3})%\|")
"""In the line of a progress bar of tqdm, which both libraries draw."""
SILENCE_S = 300.0
"""For the child to say something, or to end: between two lines of its bars are seconds."""


def convert_gguf(gguf: Path, directory: Path) -> None:
    """Writes the model in a GGUF file as a Hugging Face directory: fp32 safetensors, tokenizer, chat template.

    Quantised weights are expanded to fp32: what is trained is the model as quantised, not the one it was made from.
    Takes about 25 s and 1.5 GB of memory for 135 million parameters.
    """
    print("stage:import", flush=True)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    print("stage:read", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    # save_pretrained refuses a model that was loaded from GGUF, so its tensors move into a fresh one.
    config: Any = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.float32
    config.eos_token_id = tokenizer.eos_token_id
    config.bos_token_id = tokenizer.bos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    with torch.device("meta"):
        model = type(loaded)(config)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    print("stage:write", flush=True)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def convert_in_child(gguf: Path, directory: Path, progress: Callable[[float], None]) -> None:
    """`convert_gguf`, with `progress` told of the share that is done, from 0 to 1.

    Errors: `ModelError` with the last line of what the child wrote.
    """
    child = subprocess.Popen(
        [sys.executable, *SAFE_PYTHON, "-m", "learner.model.conversion", str(gguf), str(directory)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(python_path())},
    )
    last = ""
    try:
        assert child.stdout is not None
        share = Share()
        # Read as it comes: a bar has no line breaks, and a pipe that nobody reads stops its writer.
        while True:
            if not select.select([child.stdout], [], [], SILENCE_S)[0]:
                raise ModelError(f"{gguf} cannot be converted: nothing came of it for {SILENCE_S:g} s; try again")
            if not (chunk := os.read(child.stdout.fileno(), 65536)):
                break
            text = chunk.decode(errors="replace")
            progress(share.after(text))
            last = next((line for line in reversed(re.split(r"[\r\n]+", text)) if line.strip()), last)
        if child.wait(timeout=SILENCE_S) != 0:
            raise ModelError(f"{gguf} cannot be converted: {last.strip() or f'exit code {child.returncode}'}")
    finally:
        child.kill()
        child.wait()


class Share:
    """How much of a conversion is done, from what it writes."""

    def __init__(self) -> None:
        self._stage = "import"
        self._done = 0.0

    def after(self, text: str) -> float:
        """The share once `text` was written. It never falls: each stage has several bars of its own."""
        for line in re.split(r"[\r\n]+", text):
            if stage := _STAGE.match(line):
                self._stage = stage[1] if stage[1] in STAGES else self._stage
                within = 0.0
            elif percent := _PERCENT.search(line):
                within = int(percent[1]) / 100
            else:
                continue
            start, end = STAGES[self._stage]
            self._done = max(self._done, start + (end - start) * min(within, 1.0))
        return self._done


if __name__ == "__main__":
    convert_gguf(Path(sys.argv[1]), Path(sys.argv[2]))
