"""What an installation puts where, and that the harness then finds the model and the tasks by itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent
FOLDERS = ("lm_eval_ape", "tasks", "calibration", "run_configs")
FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "lm_eval_ape.pth", "README.md", "LICENSE")

pytest.importorskip("setuptools", "77", reason="builds the package with the setuptools that is installed")


def python(executable: str | Path, *arguments: str, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(
        [str(executable), *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built, so that building leaves nothing in the repository."""
    copy = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(REPOSITORY / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for file in FILES:
        shutil.copy(REPOSITORY / file, copy / file)
    (copy / "tests").mkdir()
    shutil.copy(__file__, copy / "tests")
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, as a release is: what that leaves out is in no wheel."""
    out = tmp_path_factory.mktemp("wheel")
    python(sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})", cwd=source)
    (sdist,) = out.glob("*.tar.gz")
    pip = ("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out))
    python(sys.executable, *pip, str(sdist), cwd=out)
    return next(out.glob("*.whl"))


def environment(folder: Path) -> tuple[Path, Path]:
    """A virtual environment that sees this one's packages but not its `.pth` files, nor so this package."""
    python(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=folder.parent)
    executable = folder / "bin" / "python"
    site = Path(python(executable, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (site / "zz_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return executable, site


# Indexes two of the harness's own folders of tasks: all of them, as with the wheel, take a quarter of a minute.
FEW_TASKS = """
import pathlib
import lm_eval.tasks
from lm_eval.tasks._index import TaskIndex
theirs, files = pathlib.Path(lm_eval.tasks.__file__).parent, TaskIndex._iter_yaml_files
few = ("longbench", "hellaswag")
TaskIndex._iter_yaml_files = staticmethod(
    lambda root: (path for path in files(root) if root != theirs or path.parent.name in few)
)
"""


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_after_installation_the_harness_finds_model_and_tasks_and_uninstalling_leaves_nothing(
    kind: str, source: Path, wheel: Path, tmp_path: Path
) -> None:
    executable, site = environment(tmp_path / "env")
    before = {path.name for path in site.iterdir()}
    what = [str(wheel)] if kind == "wheel" else ["--no-build-isolation", "-e", str(source)]
    pip = [sys.executable, "-m", "pip", "--python", str(executable)]
    python(*pip, "install", "-q", "--no-deps", *what, cwd=tmp_path)

    installed = {path.name for path in site.iterdir()} - before - {"__pycache__"}
    ours = {name for name in installed if name.startswith(("lm_eval_ape", "__editable__"))}
    assert installed == ours
    assert "lm_eval_ape.pth" in installed

    script = """
import json, sys
light = sorted(m for m in sys.modules if m.split(".")[0] in ("torch", "transformers", "lm_eval", "numpy"))
FEW_TASKS
import lm_eval.models
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager
names = TaskManager().all_tasks
import importlib.metadata as md
print(json.dumps({
    "light": light,
    "class": get_model("ape-hf").__name__,
    "ours": len([n for n in names if n.startswith("ape_longbench_")]),
    "others": sorted(n for n in names if n in ("ape_perplexity", "ape_fewshot", "ape_keyvalue", "ape_needle")),
    "theirs": "longbench_2wikimqa" in names and "hellaswag" in names,
    "entry": [e.value for e in md.entry_points(group="lm_eval.models")],
}))
"""
    script = script.replace("FEW_TASKS", FEW_TASKS if kind == "editable" else "")
    found = json.loads(python(executable, "-c", script, cwd=tmp_path).splitlines()[-1])
    assert found["light"] == []
    assert found["class"] == "ApeHFLM"
    assert found["ours"] >= 102
    assert found["others"] == ["ape_fewshot", "ape_keyvalue", "ape_needle", "ape_perplexity"]
    assert found["theirs"]
    assert found["entry"] == ["lm_eval_ape.harness.ape_hf:ApeHFLM"]
    assert "usage: lm-eval-ape" in python(executable, "-m", "lm_eval_ape", "--help", cwd=tmp_path)

    python(*pip, "uninstall", "-q", "-y", "lm-eval-ape", cwd=tmp_path)
    assert {path.name for path in site.iterdir()} - {"__pycache__"} == before - {"__pycache__"}


def test_the_source_distribution_holds_no_tests(wheel: Path) -> None:
    """Their helpers and data are not there, so none of them could run."""
    (sdist,) = wheel.parent.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert {*FOLDERS, *FILES} <= tops
    assert not tops & {"tests", "experiments", "benchmarks", "docs"}


def test_the_wheel_holds_one_package_and_the_hook(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lm_eval_ape", "lm_eval_ape.pth"}
    assert {f"lm_eval_ape/{folder}/__init__.py" for folder in ("tasks", "calibration", "run_configs")} <= set(names)
    assets = {path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("lm_eval_ape/report/assets/**/*.*")}
    assert {"lm_eval_ape/report/assets/page.js", "lm_eval_ape/report/assets/sections/board.html"} <= assets
    assert assets <= set(names)
    assert not [name for name in names if "__pycache__" in name]
    yaml_files = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "tasks").rglob("*.yaml")}
    assert {f"lm_eval_ape/{path}" for path in yaml_files} <= set(names)
    assert {path.split("/")[1] for path in yaml_files} == {
        *("longbench", "pocket"),
        *("perplexity", "fewshot", "keyvalue", "needle"),
    }
    assert {"lm_eval_ape/pocket/model/model.safetensors", "lm_eval_ape/report/assets/page.html"} <= set(names)
    assert not [
        name for name in names if re.search(r"(^|/)(tests|benchmarks|experiments|examples|docs)/|training", name)
    ]
