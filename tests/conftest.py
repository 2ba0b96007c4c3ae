"""Shared fixtures. Nothing here or in any test reaches the network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from torch.utils import collect_env

# Tiny models gain nothing from threads, and test processes side by side lose much.
torch.set_num_threads(1)

import lm_eval.tasks  # noqa: E402
import pytest  # noqa: E402
from lm_eval.tasks._index import TaskIndex  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from helpers import property_profiles, tiny  # noqa: E402
from lm_eval_ape.tasks import TASKS_DIR  # noqa: E402

property_profiles.load()
SAVE = Figure.savefig


@pytest.fixture(scope="session", autouse=True)
def machine_described_once() -> Iterator[None]:
    """The harness describes the machine in every results file, which takes half a second, and pip, each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect_env, "get_pretty_env_info", cache(collect_env.get_pretty_env_info))
        yield


@pytest.fixture(scope="session", autouse=True)
def pngs_stay_empty() -> Iterator[None]:
    """Each figure is written as PNG and as SVG: it is drawn for the SVG, which takes as long again."""

    def savefig(figure: Figure, file: Any, **options: Any) -> None:
        if options.get("format") == "png" and isinstance(file, Path):
            file.touch()
        else:
            SAVE(figure, file, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        yield


@pytest.fixture
def pngs(monkeypatch: pytest.MonkeyPatch) -> None:
    """PNGs that are drawn."""
    monkeypatch.setattr(Figure, "savefig", SAVE)


@pytest.fixture
def own_tasks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the harness would index its own ten thousand tasks, which takes half a minute, it finds this package's."""
    build = TaskIndex.build
    harness = Path(lm_eval.tasks.__file__).parent

    def build_ours(paths: Iterable[Path], **options: Any) -> Any:
        return build([TASKS_DIR if path == harness else path for path in paths], **options)

    monkeypatch.setattr(TaskIndex, "build", staticmethod(build_ours))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama in float64 with its tokenizer, on disk as a checkpoint from the hub would be."""
    return tiny.save_checkpoint(tmp_path_factory.mktemp("llama"), dtype=torch.float64)


REPOSITORY = Path(__file__).resolve().parents[1]
DATA_VARIABLE = "LM_EVAL_APE_TEST_DATA"


def _data_folder(name: str) -> Path:
    root = Path(os.environ.get(DATA_VARIABLE, REPOSITORY.parent / "shared" / "data"))
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"needs official data in {folder}; {DATA_VARIABLE} names another root folder")
    return folder


@pytest.fixture
def longbench_dir() -> Path:
    """Folder of official LongBench `.jsonl` files, maybe partial, and of `config/`."""
    return _data_folder("longbench")


@pytest.fixture
def longbench_preds() -> Path:
    """Folder of predictions for all 21 datasets and of their official scores, `result.json`."""
    return _data_folder("longbench/preds/llama3-8b-instruct")
