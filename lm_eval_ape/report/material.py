"""The material of a report: our commands' files in some folders, read and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from lm_eval_ape.artefacts import analysis_file, board_file, calibration_file
from lm_eval_ape.artefacts.analysis import Analysis
from lm_eval_ape.artefacts.board import Board
from lm_eval_ape.artefacts.calibration import Calibration
from lm_eval_ape.errors import ApeError


class Kind(NamedTuple):
    """A file that a report can show.

    Attributes:
        file_name: How it is called.
        command: What makes it.
        read: Reads and checks it.
    """

    file_name: str
    command: str
    read: Callable[[Path], Any]


KINDS: Mapping[str, Kind] = {
    "board": Kind(
        board_file.FILE_NAME,
        "lm-eval-ape compare --model_args pretrained=MODEL --tasks TASK --output_path DIR",
        board_file.read,
    ),
    "calibration": Kind(
        calibration_file.FILE_NAME,
        "lm-eval-ape calibrate --model_args pretrained=MODEL --tasks TASK --output_path DIR",
        calibration_file.read,
    ),
    "analysis": Kind(
        analysis_file.FILE_NAME,
        "lm-eval-ape analyze --model_args pretrained=MODEL --tasks TASK --output_path DIR",
        analysis_file.read,
    ),
}


Content = TypeVar("Content")


@dataclass(frozen=True)
class Found(Generic[Content]):
    """A file that was found.

    Attributes:
        path: Where.
        name: Its folder as a reader would call it.
        content: What it holds.
    """

    path: Path
    name: str
    content: Content


class Material(NamedTuple):
    """All files of a report, in the order in which their folders were named."""

    boards: tuple[Found[Board], ...]
    calibrations: tuple[Found[Calibration], ...]
    analyses: tuple[Found[Analysis], ...]


def find(folders: Sequence[str]) -> Material:
    """Read all boards, calibrations and analyses in some folders and below.

    Args:
        folders: Folders, or the files themselves.

    Raises:
        ApeError: A folder does not exist, nothing is found, or a file cannot be read.
    """
    places = [Path(folder).expanduser() for folder in folders]
    if missing := next((place for place in places if not place.exists()), None):
        raise ApeError(f"There is no folder {missing}. {_makers()}")
    found = {name: tuple(_find(kind, places)) for name, kind in KINDS.items()}
    if not any(found.values()):
        names = ", ".join(kind.file_name for kind in KINDS.values())
        raise ApeError(f"There is none of {names} in {', '.join(map(str, places))} or below. {_makers()}")
    return Material(found["board"], found["calibration"], found["analysis"])


def _makers() -> str:
    makers = " ".join(f"{kind.file_name} is made by `{kind.command}`." for kind in KINDS.values())
    return f"A report shows what other commands have written. {makers}"


def _find(kind: Kind, places: Sequence[Path]) -> list[Found[Any]]:
    paths: dict[Path, Path] = {}
    for place in places:
        files = sorted(place.rglob(kind.file_name)) if place.is_dir() else [place] * (place.name == kind.file_name)
        for file in files:
            paths.setdefault(file.resolve(), file)
    return [Found(path, path.parent.as_posix() or ".", kind.read(path)) for path in paths.values()]
