"""Valid files of our commands and the harness, and ways to damage them."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

FOLDER = Path(__file__).parents[1] / "hostile"
VALID = FOLDER / "valid"
DATE = "2026-01-01T00-00-00.000000"
RUN = {
    "results": Path("pocket") / f"results_{DATE}.json",
    "samples": Path("pocket") / f"samples_ape_pocket_twohop_test_{DATE}.jsonl",
    "record": Path("run.json"),
    "kl": Path("kl.json"),
    "answer_nats": Path("answer_nats.json"),
}
"""Files of a run in its strategy's folder."""

Place = tuple[str | int, ...]
REMOVED = object()
# What stands where something else belongs: wrong types, and numbers that are none, too large, negative or zero.
WRONG: list[Any] = [
    REMOVED, None, True, False, -1, 0, 1, 0.5, -0.5, 10**25, -(10**25), 1e300, -1e300, 1e-300, "", "text", "3", "NaN",
    "../../etc/passwd", "/etc/passwd", "\u2028", "\x1b[2J", [], [[]], [None], [{}], ["text"], {}, {"text": 1}, {"": {}},
]  # fmt: skip


def valid(name: str) -> Any:
    """The content of a valid file: `board`, `calibration`, `analysis`, or a part of a run (samples as a list)."""
    if name not in RUN:
        return json.loads((VALID / f"{name}.json").read_text(encoding="utf-8"))
    text = (VALID / "runs" / "ape" / RUN[name]).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if name == "samples" else json.loads(text)


def written(name: str, content: Any) -> str:
    """Content as its file holds it."""
    if name == "samples" and isinstance(content, list):
        return "".join(json.dumps(line) + "\n" for line in content)
    return json.dumps(content)


def run_folder(folder: Path) -> Path:
    """A copy of the valid runs, `ape` and `sequential`."""
    return Path(shutil.copytree(VALID / "runs", folder / "runs", dirs_exist_ok=True))


def places(content: Any, before: Place = ()) -> Iterator[Place]:
    """Every place in JSON content, the whole first."""
    yield before
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*before, key))


def edited(content: Any, place: Sequence[str | int], value: Any) -> Any:
    """A copy of content with another value at a place, or nothing there (`REMOVED`)."""
    if not place:
        return None if value is REMOVED else value
    changed = copy.deepcopy(content)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    if value is REMOVED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return changed


@st.composite
def damaged(draw: st.DrawFn, name: str) -> Any:
    """A valid file's content with one or two places changed."""
    content = valid(name)
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.sampled_from(list(places(content))))
        content = edited(content, place, draw(st.sampled_from(WRONG)))
    return content
