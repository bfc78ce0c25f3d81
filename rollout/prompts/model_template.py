"""The chat template of a model's directory, tried before anything is sampled with it."""

import json
from pathlib import Path
from typing import Any

from rollout.episodes.chat_template import ChatTemplate
from rollout.episodes.template_probes import Probed, probe_template
from rollout.prompts.chat import load_tokenizer


def load_template(model_dir: str, *, trust_remote_code: bool = False) -> ChatTemplate:
    """The template with the model's own end tokens. Errors: `ModelError` for one that cannot be grown."""
    template, _ = probed_template(model_dir, trust_remote_code=trust_remote_code)
    return template


def probed_template(model_dir: str, *, trust_remote_code: bool = False) -> tuple[ChatTemplate, list[Probed]]:
    """The template, and what the probes found. Errors: as `load_template`."""
    tokenizer = load_tokenizer(model_dir, trust_remote_code=trust_remote_code)
    template = ChatTemplate(tokenizer, end_ids=end_ids_of(model_dir, tokenizer))
    return template, probe_template(template)


def end_ids_of(model_dir: str, tokenizer: Any) -> list[int]:
    """The tokens with which the model ends: of its tokenizer, config.json and generation_config.json, as an engine
    takes them."""
    found = [tokenizer.eos_token_id]
    for name in ("config.json", "generation_config.json"):
        path = Path(model_dir) / name
        if path.is_file():
            ids = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            found += ids if isinstance(ids, list) else [ids]
    return sorted({token for token in found if token is not None})
