"""The start-up hook: what it does when Python starts, in fresh interpreters, and what registering does later."""

from __future__ import annotations

import json
import subprocess
import sys

import lm_eval.models
import pytest
from lm_eval.api.registry import model_registry
from lm_eval.tasks import TaskManager

from lm_eval_ape.hook import register

TARGET = "lm_eval_ape.harness.ape_hf:ApeHFLM"


def run(script: str) -> dict[str, object]:
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout.splitlines()[-1]))


def test_starting_python_with_the_hook_imports_nothing_heavy() -> None:
    script = """
import json, sys
for name in [name for name in sys.modules if name.startswith("lm_eval_ape")]:
    del sys.modules[name]
before = set(sys.modules)
import lm_eval_ape.hook
lm_eval_ape.hook.install()
print(json.dumps({"new": sorted(set(sys.modules) - before)}))
"""
    new = run(script)["new"]
    assert new == ["lm_eval_ape", "lm_eval_ape.hook", "lm_eval_ape.version"]


def test_registering_works_before_the_harness_is_imported_and_twice() -> None:
    script = """
import json
from lm_eval_ape.hook import register
register(); register()
import lm_eval.models
from lm_eval.api.registry import model_registry
from lm_eval.tasks import TaskManager
manager = TaskManager(include_defaults=False)
print(json.dumps({"model": "ape-hf" in model_registry, "mapping": lm_eval.models.MODEL_MAPPING["ape-hf"],
                  "bare": len(manager.all_tasks)}))
"""
    assert run(script) == {"model": True, "mapping": TARGET, "bare": 0}


def test_registering_works_after_the_harness_is_imported_and_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(lm_eval.models.MODEL_MAPPING, "ape-hf")
    monkeypatch.delitem(model_registry._objs, "ape-hf")
    assert "ape-hf" not in model_registry
    for _ in range(2):
        register()
        assert "ape-hf" in model_registry
        assert lm_eval.models.MODEL_MAPPING["ape-hf"] == TARGET
        assert not TaskManager(include_defaults=False).all_tasks


def test_an_entry_point_registered_first_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(lm_eval.models.MODEL_MAPPING, "ape-hf")
    monkeypatch.delitem(model_registry._objs, "ape-hf")
    model_registry.register("ape-hf", target="some.other:Class")
    register()
    assert model_registry._objs["ape-hf"] == "some.other:Class"
