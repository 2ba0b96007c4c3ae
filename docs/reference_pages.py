"""The pages of the reference that the code says itself: model arguments and commands (`make reference`).

Each page has a part between two markers that is made here; the sentences around it are written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lm_eval_ape.analysis.options import Options as AnalysisOptions
from lm_eval_ape.calibration.gradient_options import GradientOptions
from lm_eval_ape.calibration.options import Options as CalibrationOptions
from lm_eval_ape.calibration.search_options import SearchOptions
from lm_eval_ape.cli.demo import Demo
from lm_eval_ape.comparison.options import Options as ComparisonOptions
from lm_eval_ape.harness.arguments import OWN
from lm_eval_ape.settings.options import HarnessOptions, Options
from lm_eval_ape.settings.strategy import DEFAULTS, Settings
from lm_eval_ape.settings.validation import choices

FOLDER = Path(__file__).resolve().parent / "reference"
BEGIN, END = "<!-- made by `make reference` -->\n", "<!-- end of what `make reference` makes -->\n"
# Options whose flag has another name.
FLAGS = {"sources": "from"}
# What several commands share stands once, and what a calibration has for a search or a fit under a heading of its own.
COMMANDS: Mapping[str, tuple[type[Options], tuple[type[Options], ...]]] = {
    "All commands that run tasks": (HarnessOptions, ()),
    "`lm-eval-ape calibrate`": (CalibrationOptions, (HarnessOptions, SearchOptions, GradientOptions)),
    "A search through encodings: `lm-eval-ape calibrate --search ...`": (SearchOptions, (HarnessOptions,)),
    "A fit by gradient: `lm-eval-ape calibrate --method gradient`": (GradientOptions, (HarnessOptions,)),
    "`lm-eval-ape compare`": (ComparisonOptions, (HarnessOptions,)),
    "`lm-eval-ape analyze`": (AnalysisOptions, (HarnessOptions,)),
    "`lm-eval-ape demo`": (Demo, ()),
}


def model_arguments() -> str:
    """The table of model arguments. An argument without a sentence shares the row of the one before it."""
    rows: list[tuple[list[str], str, str]] = []
    for name, values, default in _arguments():
        if values:
            rows.append(([name], values, default))
        else:
            rows[-1][0].append(name)
    lines = [f"| {', '.join(map(_code, names))} | {values} | {default} |" for names, values, default in rows]
    return "\n".join(["| argument | values | default |", "|---|---|---|", *lines]) + "\n"


def commands() -> str:
    """A table of flags for each command."""
    parts = []
    for title, (options, without) in COMMANDS.items():
        known = {name for other in without for name, field in other.model_fields.items() if _says(options, name, field)}
        rows = [_flag(name, field) for name, field in options.model_fields.items() if name not in known]
        parts += [f"## {title}", "", "| flag | what it does | default |", "|---|---|---|", *rows, ""]
    return "\n".join(parts)


PAGES = {"model-arguments.md": model_arguments, "commands.md": commands}


def updated(name: str) -> str:
    """A page with its part made anew."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{PAGES[name]().strip()}\n\n{END}{rest.partition(END)[2]}"


def _arguments() -> Iterator[tuple[str, str, str]]:
    """Each model argument's name, values and default."""
    for name, default in DEFAULTS.items():
        field = Settings.model_fields[name]
        values = str(field.description).replace("{choices}", ", ".join(map(_code, choices(field.annotation))))
        extra = field.json_schema_extra
        yield name, values, str((isinstance(extra, dict) and extra["shown"]) or _default(default))
    for name, (values, default) in OWN.items():
        yield name, values, default


def _says(options: type[Options], name: str, field: Any) -> bool:
    """Whether an option says of itself what another one's options say, so that it need not stand twice."""
    return name in options.model_fields and options.model_fields[name].description == field.description


def _flag(name: str, field: Any) -> str:
    extra = field.json_schema_extra
    value = (isinstance(extra, dict) and extra.get("metavar")) or "|".join(choices(field.annotation))
    shown = f"--{FLAGS.get(name, name)} {value}".strip()
    said = str(field.description).partition(" (default: ")
    default = said[2].removesuffix(")") or _default(field.default)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in (_code(shown), said[0], default)) + " |"


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "", (), {}) else _code(str(value).replace("\n", "\\n"))


def _code(text: str) -> str:
    return f"`{text}`"


if __name__ == "__main__":
    for page in PAGES:
        (FOLDER / page).write_text(updated(page), encoding="utf-8")
