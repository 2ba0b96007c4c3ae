"""`lm-eval-ape paths`: where the installed package keeps what other commands take a path to."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

_FOLDERS = {
    "tasks": ("lm_eval_ape.tasks", ""),
    "run_configs": ("lm_eval_ape.run_configs", ""),
    "pocket": ("lm_eval_ape.pocket", "model"),
}


def main(arguments: Sequence[str]) -> int:
    """Print one folder, or all with their names.

    Args:
        arguments: What follows `lm-eval-ape paths`.
    """
    parser = argparse.ArgumentParser(
        prog="lm-eval-ape paths",
        description="Print where tasks (YAML), run configurations and the shipped model lie.",
        epilog='example: lm_eval run --config "$(lm-eval-ape paths run_configs)/llama-3.1-8b-instruct/sink.yaml"',
    )
    parser.add_argument("name", nargs="?", choices=sorted(_FOLDERS), help="print this folder alone")
    name = parser.parse_args(arguments).name
    for folder in [name] if name else _FOLDERS:
        print(_path(folder) if name else f"{folder:12}{_path(folder)}")
    return 0


def _path(name: str) -> Path:
    package, inner = _FOLDERS[name]
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / inner
