"""Token ids of prompts, exactly as the harness's `hf` makes them, with the characters that each covers."""

from __future__ import annotations

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.utils import has_bos_prefix

from lm_eval_ape.prompts.prompt import Tokenise, Tokens


class PromptIds:
    """A tokenizer under the harness's arguments.

    Args:
        tokenizer: A fast one.
        add_bos_token: Whether special tokens are added; None for the tokenizer's own rule.
        prefix_token: The token that the harness puts before a text without a context.
        truncation: Whether prompts to generate from are cut to the tokenizer's `model_max_length`.
    """

    def __init__(self, tokenizer: Any, add_bos_token: bool | None, prefix_token: int, truncation: bool) -> None:
        self.tokenizer = tokenizer
        self.add_bos_token = add_bos_token
        self.prefix_token = prefix_token
        self.truncation = truncation

    def of(self, request: Instance) -> Tokenise:
        """How a request's prompt becomes ids."""
        return self.generated if request.request_type == "generate_until" else self.scored

    def generated(self, text: str) -> Tokens:
        """A prompt to generate from, as `hf`'s `tok_batch_encode` makes it."""
        special = False if has_bos_prefix(text, self.tokenizer.bos_token) else self.add_bos_token
        return self._with_characters(text, special, truncation=self.truncation)

    def scored(self, text: str) -> Tokens:
        """A prompt whose continuation is scored, as `hf`'s `tok_encode` makes it."""
        special = False if has_bos_prefix(text, self.tokenizer.decode(self.prefix_token)) else self.add_bos_token
        return self._with_characters(text, special)

    def _with_characters(self, text: str, special: bool | None, *, truncation: bool = False) -> Tokens:
        options = {} if special is None else {"add_special_tokens": special}
        encoding = self.tokenizer(text, return_offsets_mapping=True, truncation=truncation, **options)
        return encoding["input_ids"], encoding["offset_mapping"]
