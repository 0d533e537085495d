"""Chat templates that need care, each in the tiny tokenizer.

They are cut down from templates of public models, and keep what is special about these.
"""

from __future__ import annotations

from editbench.models import LanguageModel
from editbench.testing import tiny_model, tiny_tokenizer

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OPENING = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_NO_THOUGHT = "<think>\n\n</think>\n\n"

TEMPLATES = {
    # always opens a thought, and drops the thoughts of earlier turns (DeepSeek-R1, QwQ)
    "opens a thought": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    ),
    # always opens a thought, and writes an empty one in the last turn (Qwen3-Thinking)
    "writes thoughts": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if loop.last and m.role == 'assistant' %}{{ '"
        + _NO_THOUGHT.replace("\n", "\\n")
        + "' }}"
        "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    ),
    # thinks unless it is told not to (Qwen3)
    "takes enable_thinking": (
        TURNS + OPENING + "{% if add_generation_prompt and enable_thinking is false %}"
        "{{ '" + _NO_THOUGHT.replace("\n", "\\n") + "' }}{% endif %}"
    ),
    "no generation prompt": TURNS,
    # Llama 2 and Mistral
    "a space before the answer": (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% elif m.role == 'assistant' %} {{ m.content }}<|endoftext|>{% endif %}{% endfor %}"
    ),
    # It must be asked something at the end.
    "no last turn of the model": (
        "{% if messages[-1].role != 'user' %}{{ raise_exception('no question') }}{% endif %}"
        "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
        "{% else %} {{ m.content }}<|endoftext|>{% endif %}{% endfor %}"
    ),
    # The line break between two turns is left out before the generation prompt.
    "other white space": (
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
        "{% if m.role == 'assistant' %}<|endoftext|>{% endif %}"
        "{% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    ),
    # gpt-oss
    "a channel before the answer": (
        "{% for m in messages %}<|im_start|>{{ m.role }}"
        "{% if m.role == 'assistant' %}<channel>final{% endif %}"
        "{{ '\\n' + m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    ),
    "content in parts": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}"
        "{% endfor %}<|im_end|>\n{% endfor %}" + OPENING
    ),
    "a system turn is required": (
        "{% if messages[0].role != 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        + TURNS
        + OPENING
    ),
    # Its first turn is taken for the system's, whatever it is.
    "the first turn is the system's": (
        "<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n{% for m in messages[1:] %}"
        "<|im_start|>{{ 'user' if loop.index0 % 2 == 0 else 'assistant' }}\n"
        "{{ m.content }}<|im_end|>\n{% endfor %}" + OPENING
    ),
    # Llama 3.2
    "the date": (
        "{% if strftime_now is defined %}{% set date = strftime_now('%d %b %Y') %}{% endif %}"
        "<|im_start|>system\nToday Date: {{ date }}<|im_end|>\n" + TURNS + OPENING
    ),
    "one question only": (
        "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}"
        + TURNS
        + OPENING
    ),
    "forgets what the model said": (
        "{% for m in messages if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n"
        "{% endfor %}" + OPENING
    ),
}
"""Templates that can be used, by what is special about them."""
REFUSED = {
    "two ways": (
        "{% for m in messages %}<|im_start|>{{ 'bot' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content }}<|im_end|>\n{% endfor %}" + OPENING
    ),
    "upper case": "{% for m in messages %}{{ m.content | upper }}\n{% endfor %}",
    "the question alone": "{{ messages[0].content }}",
    "an error": "{{ raise_exception('Roles must alternate') }}",
    "a syntax error": "{% if %}",
    "a type error": "{{ messages + 1 }}",
    "a long loop": TURNS + "{% for i in range(10**9) %}{% endfor %}",
    "loops in loops": TURNS
    + "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
}
"""Templates that cannot be used."""


def hostile_tokenizer(name, **how):
    """Return the tiny tokenizer with a template of ``TEMPLATES`` or ``REFUSED``."""
    tokenizer = tiny_tokenizer(chat=True, **how)
    tokenizer.chat_template = {**TEMPLATES, **REFUSED}[name]
    return tokenizer


def hostile_model(name, **how) -> LanguageModel:
    """Return a tiny model whose tokenizer has such a template."""
    model = tiny_model("llama", chat=True, num_hidden_layers=2, **how)
    return LanguageModel(model.model, hostile_tokenizer(name), name=name, precision="float32")
