"""The README's table of model arguments, from the settings and what else the model can be told (`make readme`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm_eval_ape.harness.arguments import OWN
from lm_eval_ape.settings.strategy import DEFAULTS, Settings
from lm_eval_ape.settings.validation import choices

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- made by `make readme` -->\n", "<!-- end of what `make readme` makes -->\n"


def table() -> str:
    """The table in Markdown. An argument without a sentence shares the row of the one before it."""
    rows: list[tuple[list[str], str, str]] = []
    for name, values, default in arguments():
        if values:
            rows.append(([name], values, default))
        else:
            rows[-1][0].append(name)
    lines = [f"| {', '.join(map(_code, names))} | {values} | {default} |" for names, values, default in rows]
    return "\n".join(["| argument | values | default |", "|---|---|---|", *lines]) + "\n"


def arguments() -> Iterator[tuple[str, str, str]]:
    """Each argument's name, values and default."""
    for name, default in DEFAULTS.items():
        field = Settings.model_fields[name]
        values = str(field.description).replace("{choices}", ", ".join(map(_code, choices(field.annotation))))
        extra = field.json_schema_extra
        yield name, values, str((isinstance(extra, dict) and extra["shown"]) or _default(default))
    for name, (values, default) in OWN.items():
        yield name, values, default


def updated(text: str) -> str:
    """A README with the table between its markers."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


def _default(value: Any) -> str:
    return "none" if value in (None, "") else _code(str(value).replace("\n", "\\n"))


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
