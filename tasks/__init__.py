"""Evaluation tasks of lm-eval-ape, in the YAML format of lm-evaluation-harness."""

from pathlib import Path

TASKS_DIR: Path = Path(__file__).resolve().parent
"""The folder to give to `TaskManager(include_path=...)` or `lm_eval --include_path`."""

__all__ = ["TASKS_DIR"]
