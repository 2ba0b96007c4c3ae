"""Chat templates in the manner of the models that people run, in words of our own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from helpers import tiny
from lm_eval_ape.prompts.chat import ChatFormat


@dataclass(frozen=True)
class Template:
    """A template and what it needs.

    Attributes:
        text: The template.
        specials: Its markers, single tokens.
        arguments: What it is called with.
        bos: Whether it writes the BOS token itself.
    """

    text: str
    specials: tuple[str, ...] = ()
    arguments: dict[str, Any] = field(default_factory=dict)
    bos: bool = False


_CHATML = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
_CHATML_ANSWER = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
_DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful model.<|im_end|>\n{% endif %}"
)
_QWEN3 = (
    "{% for m in messages %}"
    "{% if m.role == 'assistant' %}{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "<|im_start|>assistant\n{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ said }}<|im_end|>\n"
    "{% else %}" + _CHATML + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
_CHATML_MARKS = ("<|im_start|>", "<|im_end|>")
_QWEN3_MARKS = (*_CHATML_MARKS, "<think>", "</think>")

TEMPLATES = {
    "llama3": Template(
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
        "{{ m.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        bos=True,
    ),
    "qwen2.5": Template(
        _DEFAULT_SYSTEM + "{% for m in messages %}" + _CHATML + "{% endfor %}" + _CHATML_ANSWER, _CHATML_MARKS
    ),
    "qwen3": Template(_QWEN3, _QWEN3_MARKS),
    "qwen3 without thinking": Template(_QWEN3, _QWEN3_MARKS, {"enable_thinking": False}),
    "gemma3": Template(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
        "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
        "{% for m in rest %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ first if loop.first else '' }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        ("<start_of_turn>", "<end_of_turn>"),
        bos=True,
    ),
    "mistral": Template(
        "{{ bos_token }}{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
        "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}"
        "{% for m in rest %}{% if m.role == 'user' %}[INST] {{ system if loop.last else '' }}{{ m.content }} [/INST]"
        "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        ("[INST]", "[/INST]"),
        bos=True,
    ),
    "phi3": Template(
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
        ("<|system|>", "<|assistant|>"),
    ),
    "granite": Template(
        "{% if messages[0].role != 'system' %}<|start_of_role|>system<|end_of_role|>You know much.<|end_of_text|>\n"
        "{% endif %}{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}"
        "<|end_of_text|>\n{% endfor %}{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>"
        "{% endif %}",
        ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
    ),
    "chatml": Template("{% for m in messages %}" + _CHATML + "{% endfor %}" + _CHATML_ANSWER, _CHATML_MARKS),
    "smollm2": Template(
        _DEFAULT_SYSTEM.replace("helpful model", "small model")
        + "{% for m in messages %}"
        + _CHATML
        + "{% endfor %}"
        + _CHATML_ANSWER,
        _CHATML_MARKS,
    ),
}


def make_tokenizer(template: Template, *, bos: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with a template and its markers; with `bos` it begins plain texts with its BOS token."""
    tokenizer = tiny.make_tokenizer()
    if not bos:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    tokenizer.add_special_tokens({"additional_special_tokens": list(template.specials)})
    tokenizer.chat_template = template.text
    return tokenizer


def chat_format(tokenizer: PreTrainedTokenizerFast, **arguments: Any) -> ChatFormat:
    """The template as `ApeHFLM` learns it, which calls it as the harness does."""

    def render(history: list[dict[str, str]], answer: bool) -> str:
        options = {"add_generation_prompt": answer, "continue_final_message": not answer, **arguments}
        return str(tokenizer.apply_chat_template(history, tokenize=False, **options))

    def close(history: list[dict[str, str]]) -> str:
        return str(tokenizer.apply_chat_template(history, tokenize=False, **arguments))

    return ChatFormat(render, close)
