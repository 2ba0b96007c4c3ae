"""Runs a checker on the package as it is installed: a tree of links to its modules, named in the output where they lie.

`tasks/`, `calibration/` and `run_configs/` lie beside `lm_eval_ape/` and are installed inside of it (see `setup.py`),
which tools that believe the tree cannot see.

    .venv/bin/python .ci/installed.py mypy
    .venv/bin/python .ci/installed.py lint-imports
"""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TREE = Path("build", "installed")


def lay_out(tree: Path, folders: dict[str, str]) -> None:
    """Link every module to where it is installed; the folders are real ones, for tools that follow no link to one."""
    shutil.rmtree(tree, ignore_errors=True)
    for name, folder in folders.items():
        for module in (REPOSITORY / folder).rglob("*.py"):
            place = tree.joinpath(*name.split("."), module.relative_to(REPOSITORY / folder))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(module)


def main() -> int:
    """Run the tool that the command line names, with what it asks for."""
    folders: dict[str, str] = runpy.run_path(str(REPOSITORY / "setup.py"), run_name="setup")["FOLDERS"]
    lay_out(REPOSITORY / TREE, folders)
    tool, *arguments = sys.argv[1:]
    program = str(Path(sys.executable).with_name(tool))
    # import-linter looks for packages where it is started.
    layers = tool == "lint-imports"
    where = REPOSITORY / TREE if layers else REPOSITORY
    options = [str(REPOSITORY / "pyproject.toml")] if layers else []
    # Before the editable installation, which Python imports when it starts.
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / TREE)}
    command = [program, *options, *arguments]
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    own = {TREE.joinpath(*name.split(".")).as_posix(): folder for name, folder in folders.items()}
    # Longest first, so that what lies inside of another is found there.
    found = re.compile("|".join(map(re.escape, sorted(own, key=len, reverse=True))))
    for text, stream in ((done.stdout, sys.stdout), (done.stderr, sys.stderr)):
        print(found.sub(lambda match: own[match.group()], text), end="", file=stream)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
