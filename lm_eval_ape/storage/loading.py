"""What can be wrong with a checkpoint, reported in a sentence while it is loaded."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import StrictDataclassError
from jinja2 import TemplateError
from safetensors import SafetensorError

from lm_eval_ape.errors import ApeError

# What transformers and what it reads files with raise for files that are missing, damaged, or of another model (without
# a tokenizer.json it may ask for a package). A RuntimeError is that of weights of another shape only where it says so.
_WRONG_FILES = (
    OSError,
    ImportError,
    ValueError,
    pickle.UnpicklingError,
    SafetensorError,
    StrictDataclassError,
    TemplateError,
    RuntimeError,
)
# What it stumbles over where a file ends too early, or holds what no model has: no layers, a list for an object, a rope
# of no known type.
_STUMBLES = (TypeError, KeyError, IndexError, AttributeError, ArithmeticError, struct.error)
_CODE, _SHAPES, _SIZES = "trust_remote_code", "ignore_mismatched_sizes", "negative dimension"


@contextmanager
def loading_told(pretrained: object, what: str = "model") -> Iterator[None]:
    """Raise what is wrong with a checkpoint as an `ApeError`; other exceptions pass.

    Args:
        pretrained: Its name or folder; a loaded model, whose tokenizer is still to be loaded.
        what: What is loaded of it, for the sentence.

    Raises:
        ApeError: It is not there, damaged, or wants to run code.
    """
    try:
        yield
    except ApeError:
        raise
    except (*_WRONG_FILES, *_STUMBLES) as error:
        if isinstance(error, RuntimeError) and _SHAPES not in str(error) and _SIZES not in str(error):
            raise
        if isinstance(pretrained, str):
            raise ApeError(_sentence(pretrained, what, error)) from error
        if isinstance(error, _STUMBLES):
            # Of a loaded model no file is read that could be wrong.
            raise
        raise ApeError(
            f"The tokenizer of the loaded {type(pretrained).__name__} cannot be loaded: {_reason(error)}. Give it as "
            "tokenizer=..., loaded or by its name."
        ) from error


def _sentence(pretrained: str, what: str, error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        return (
            f"The {what} {pretrained} cannot be loaded: its weights are a pickle that holds more than tensors, and "
            "what such a file asks for is not run. Give a checkpoint with safetensors."
        )
    if isinstance(error, ValueError) and _CODE in str(error):
        return (
            f"The {what} {pretrained} brings Python code of its own, which is not run unless you ask for it: read the "
            f"code, and give {_CODE}=True if you trust it, or another model."
        )
    if isinstance(error, RuntimeError) and _SHAPES in str(error):
        return f"The {what} {pretrained} cannot be loaded: its weights have other shapes than its config.json says."
    reason = _reason(error)
    if isinstance(error, (RuntimeError, *_STUMBLES)):
        return (
            f"The {what} {pretrained} cannot be loaded: transformers fails on what its files say "
            f"({type(error).__name__}: {reason}). Check that its files are "
            "whole and its config.json is right, or give another model."
        )
    return (
        f"The {what} {pretrained} cannot be loaded: {reason}. Give pretrained=... a folder or the name of a model on "
        "the Hugging Face hub that this machine reaches or has in its cache, with all of its files whole."
    )


def _reason(error: Exception) -> str:
    """What an exception says, as the end of a sentence."""
    return " ".join(str(error).split()).rstrip(".")
