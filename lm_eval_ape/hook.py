"""Lets lm_eval find `ape-hf` and this package's tasks.

A `.pth` file in site-packages imports this module when Python starts. It must then cost next to nothing, so it
imports only `sys` and waits: a program that imports the harness's model registry or task index gets our entries added
right after. `register` does the same at once, for programs that ask for it.
"""

from __future__ import annotations

import sys

MODEL_NAME = "ape-hf"
# A string: the registry imports it when the model is first asked for. Releases up to 0.4.13 cannot take more.
MODEL_TARGET = "lm_eval_ape.harness.ape_hf:ApeHFLM"


def _add_model(module) -> None:  # type: ignore[no-untyped-def]
    """Add the model's name to the harness's registry (`lm_eval.models`)."""
    from lm_eval.api.registry import model_registry

    module.MODEL_MAPPING.setdefault(MODEL_NAME, MODEL_TARGET)
    if MODEL_NAME not in model_registry:
        model_registry.register(MODEL_NAME, target=MODEL_TARGET)


def _add_tasks(module) -> None:  # type: ignore[no-untyped-def]
    """Index this package's tasks right after the built-in ones (`lm_eval.tasks._index`)."""
    from pathlib import Path

    build = module.TaskIndex.build
    if getattr(build, "includes_lm_eval_ape", False):
        return
    builtin = Path(module.__file__).parent

    def build_with_ours(paths, **kwargs):  # type: ignore[no-untyped-def]
        from lm_eval_ape.tasks import TASKS_DIR

        paths = list(paths)
        if builtin in paths and TASKS_DIR not in paths:
            paths.insert(paths.index(builtin) + 1, TASKS_DIR)
        return build(paths, **kwargs)

    build_with_ours.includes_lm_eval_ape = True  # type: ignore[attr-defined]
    module.TaskIndex.build = staticmethod(build_with_ours)


_AFTER_IMPORT = {"lm_eval.models": _add_model, "lm_eval.tasks._index": _add_tasks}


class _Loader:
    """The module's own loader, with an entry of ours made after the module has run."""

    def __init__(self, loader, then) -> None:  # type: ignore[no-untyped-def]
        self._loader = loader
        self._then = then

    def __getattr__(self, name: str):  # type: ignore[no-untyped-def]
        return getattr(self._loader, name)

    def create_module(self, spec):  # type: ignore[no-untyped-def]
        return self._loader.create_module(spec)

    def exec_module(self, module) -> None:  # type: ignore[no-untyped-def]
        self._loader.exec_module(module)
        self._then(module)


class _Finder:
    """Finds nothing itself: asks the other finders and wraps what they find for two names."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        then = _AFTER_IMPORT.get(name)
        if then is None:
            return None
        for finder in sys.meta_path:
            if finder is _Finder or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, then)
                return spec
        return None


def install() -> None:
    """Wait for the harness to be imported; called when Python starts. Installing twice changes nothing."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def register() -> None:
    """Add our model and tasks to the harness now, whether or not it was imported before."""
    install()
    import lm_eval.models
    import lm_eval.tasks._index

    _add_model(lm_eval.models)
    _add_tasks(lm_eval.tasks._index)
