"""Mutants that no test can tell from the module, by module and changed lines, each with its reason."""

from __future__ import annotations

EQUIVALENT: dict[tuple[str, str], str] = {}
