"""The chat template of a model's directory, tried before anything is sampled with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rollout.episodes.chat_template import ChatTemplate
from rollout.episodes.template_probes import PROBES, TOOL_PROBES, Probed, probe_template
from rollout.prompts.chat import load_tokenizer
from rollout.prompts.prompt_checks import end_token_ids


def load_template(
    model_dir: str, *, tools: Sequence[Mapping[str, Any]] = (), trust_remote_code: bool = False
) -> ChatTemplate:
    """The template with the model's own end tokens and the schemas of tools. Errors: `ModelError` for one that cannot
    be grown."""
    template, _ = probed_template(model_dir, tools=tools, trust_remote_code=trust_remote_code)
    return template


def probed_template(
    model_dir: str, *, tools: Sequence[Mapping[str, Any]] = (), trust_remote_code: bool = False
) -> tuple[ChatTemplate, list[Probed]]:
    """The template, and what the probes found. Errors: as `load_template`."""
    tokenizer = load_tokenizer(model_dir, trust_remote_code=trust_remote_code)
    template = ChatTemplate(tokenizer, end_ids=end_token_ids(tokenizer, Path(model_dir)), tools=tools)
    return template, probe_template(template, (*PROBES, *TOOL_PROBES) if tools else PROBES)
