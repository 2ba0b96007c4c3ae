"""What pyproject.toml cannot say: where packages lie in the repository, and one file beside them.

`tasks/`, `calibration/` and `run_configs/` stand at the top of the repository and are installed inside `lm_eval_ape`,
so that site-packages gets no generic name. `lm_eval_ape.pth` goes beside the package: Python reads it when it starts,
and through it `lm_eval --model ape-hf` works after a plain `pip install`.
"""

from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

FOLDERS = {
    "lm_eval_ape": "lm_eval_ape",
    "lm_eval_ape.tasks": "tasks",
    "lm_eval_ape.calibration": "calibration",
    "lm_eval_ape.run_configs": "run_configs",
}


class BuildWithHook(build_py):
    """Builds the packages and lays the start-up hook beside them, in wheels and in editable installs."""

    def run(self) -> None:
        """Build, then write the hook where the wheel is put together."""
        super().run()
        install = self.get_finalized_command("install")
        target = install.install_lib if self.editable_mode else self.build_lib
        self.mkpath(target)
        self.copy_file("lm_eval_ape.pth", str(Path(target, "lm_eval_ape.pth")), preserve_mode=False)


def packages() -> list[str]:
    """All packages under their import names."""
    found = []
    for name, folder in FOLDERS.items():
        found.append(name)
        found += [f"{name}.{inner}" for inner in find_namespace_packages(folder, exclude=["*__pycache__*"])]
    return found


if __name__ == "__main__":
    setup(packages=packages(), package_dir=FOLDERS, cmdclass={"build_py": BuildWithHook})
