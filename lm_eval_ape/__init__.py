"""Parallel context encoding for EleutherAI's lm-evaluation-harness.

Importing this package imports nothing heavy: it also happens at the start of every Python program, through the hook
that makes `lm_eval --model ape-hf` work (see `lm_eval_ape.hook`).
"""

__version__ = "0.1.0"
