"""Every setting, version and command behind the numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.artefacts.calibration import Calibration
from lm_eval_ape.report.material import Found, Material
from lm_eval_ape.report.section import Figures, Section


def build(material: Material, figures: Figures) -> Section:
    """A block for each board, row, task and calibration."""
    return Section(
        "settings",
        "Settings, versions, commands",
        {
            "boards": [_board(found) for found in material.boards],
            "calibrations": [_calibration(found) for found in material.calibrations],
        },
    )


def _board(found: Found[Board]) -> dict[str, Any]:
    board = found.content.as_json()
    return {
        "name": found.name,
        "file": str(found.path),
        "command": board["command"],
        "facts": {"made": board["created"], **_flat(board["versions"]), **_flat(board["statistics"])},
        "rows": [_row(row) for row in board["rows"]],
        "tasks": [
            {
                "name": name,
                "facts": {key: value for key, value in task.items() if key != "config" and value is not None},
                "config": _pretty(task.get("config")),
            }
            for name, task in board["tasks"].items()
        ],
    }


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    facts = {"model": row["model"], "device": row.get("device"), "made": row.get("created")}
    return {
        "label": row["label"],
        "command": row.get("command"),
        "settings": _flat(row["settings"] or {}),
        "versions": _flat(row.get("versions") or {}),
        "facts": {key: value for key, value in {**facts, "results": row.get("results_file")}.items() if value},
        "details": {
            "Model and harness configuration": _pretty(row["config"]),
            "What the run depends on": _pretty(row["identity"]),
            "The harness's own record": _pretty(row.get("provenance")),
        },
    }


def _calibration(found: Found[Calibration]) -> dict[str, Any]:
    content = found.content.as_json()
    return {
        "name": found.name,
        "file": str(found.path),
        "facts": {"made": content["created"], "device": content["device"], **_flat(content["versions"])},
        "settings": _flat(content["settings"]),
        "details": {
            "Model": _pretty(content["model"]),
            "Objective": _pretty(content["objective"]),
            "Tasks": _pretty(content["tasks"]),
            "Requests": _pretty(content["requests"]),
            "Seconds": _pretty(content["seconds"]),
        },
    }


def _flat(facts: Mapping[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value, ensure_ascii=False).strip('"') for name, value in facts.items()}


def _pretty(content: Any) -> str | None:
    return None if content is None else json.dumps(content, indent=2, ensure_ascii=False)
