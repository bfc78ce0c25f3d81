"""Chat templates with the habits of families of models, written for the tests, and a small tokenizer for them."""

import functools
from typing import Any

from rollout.episodes.chat_template import ChatTemplate

SPECIAL = (
    "<unk>",
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|head|>",
    "<|/head|>",
    "<|eot|>",
    "<turn>",
    "</turn>",
    "[INST]",
    "[/INST]",
    "[TOOLS]",
    "[/TOOLS]",
    "<|python_tag|>",
)
_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_HERMES_TOOLS = "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
FAMILIES: dict[str, str | None] = {
    "a default system turn": (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are of help.<|im_end|>\n{% endif %}" + _TURNS
    ),
    "blanks are stripped, a start of its own": (
        "<s>{% for m in messages %}<|head|>{{ m.role }}<|/head|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
        "{% if add_generation_prompt %}<|head|>assistant<|/head|>\n\n{% endif %}"
    ),
    "thinking is left out": (
        "{% set last = namespace(user=-1) %}"
        "{% for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and '</think>' in m.content and loop.index0 < last.user %}"
        "{{ m.content.split('</think>')[-1].lstrip('\n') }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "the system's message in the first turn, other names of roles": (
        "<s>{% set first = namespace(text='') %}"
        "{% if messages[0].role == 'system' %}{% set first.text = messages[0].content + '\n\n' %}{% endif %}"
        "{% for m in messages if m.role != 'system' %}<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{% if loop.first %}{{ first.text }}{% endif %}{{ m.content | trim }}</turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<turn>model\n{% endif %}"
    ),
    "results of tools as a turn of the user": (
        _HERMES_TOOLS + "{% for m in messages %}"
        "{% if m.role == 'tool' %}"
        "{% if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}"
        "\n<tool_response>\n{{ m.content }}\n</tool_response>"
        "{% if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
        "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{% if not loop.first or m.content %}\n{% endif %}"
        '<tool_call>\n{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'
        "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "no template": None,
}
REFUSED = {
    "tools stand before the last question": (
        "<s>{% set last = namespace(user=-1) %}"
        "{% for m in messages %}{% if m.role == 'user' %}{% set last.user = loop.index0 %}{% endif %}{% endfor %}"
        "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}</s>{% else %}"
        "{% if loop.index0 == last.user %}[TOOLS]be brief[/TOOLS]{% endif %}[INST] {{ m.content }}[/INST]"
        "{% endif %}{% endfor %}"
    ),
    "replies are numbered from the end": (
        "{% for m in messages %}<|im_start|>{{ m.role }} {{ messages | length - loop.index }}\n{{ m.content }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "earlier replies are left out": (
        "{% for m in messages if m.role != 'assistant' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "one question alone": (
        "{% if messages | length > 2 %}{{ raise_exception('one question at a time') }}{% endif %}" + _TURNS
    ),
    "replies in capitals": _TURNS.replace("{{ m.content }}", "{{ m.content | upper }}"),
}
"""Templates with which no conversation can grow."""
ENDS = ("</s>", "<|im_end|>", "<|eot|>", "</turn>")


@functools.cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    merges = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    texts = ["user\nWhat is it?\n\nassistant\n\n\nwater and salt\n\n", "system\n  You are of help.\n\n\n  sand"] * 20
    tokenizer.train_from_iterator(texts, merges)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


def template_of(source: str | None, tools: Any = ()) -> ChatTemplate:
    """With a tokenizer that joins blanks and ends of lines, as real ones do."""
    import copy

    tokenizer = copy.copy(_tokenizer())
    tokenizer.chat_template = source
    return ChatTemplate(tokenizer, end_ids=tokenizer.convert_tokens_to_ids(list(ENDS)), tools=tools)
