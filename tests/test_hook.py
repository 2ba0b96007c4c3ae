"""The start-up hook, in fresh interpreters."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


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


@pytest.mark.parametrize("order", ["before", "after"])
def test_registering_works_before_and_after_the_harness_is_imported_and_twice(order: str) -> None:
    script = f"""
import json, sys
if {order!r} == "after":
    import lm_eval.models, lm_eval.tasks
from lm_eval_ape.hook import register
register(); register()
import lm_eval.models
from lm_eval.api.registry import model_registry
from lm_eval.tasks import TaskManager
manager = TaskManager(include_defaults=False)
print(json.dumps({{"model": "ape-hf" in model_registry, "mapping": lm_eval.models.MODEL_MAPPING["ape-hf"],
                  "bare": len(manager.all_tasks)}}))
"""
    assert run(script) == {"model": True, "mapping": "lm_eval_ape.harness.ape_hf:ApeHFLM", "bare": 0}


def test_an_entry_point_registered_first_is_left_alone() -> None:
    script = """
import json, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if getattr(finder, "__module__", "") != "lm_eval_ape.hook"]
from lm_eval.api.registry import model_registry
import lm_eval.models
model_registry.register("ape-hf", target="some.other:Class")
from lm_eval_ape.hook import register
register()
print(json.dumps({"target": model_registry._objs["ape-hf"]}))
"""
    assert run(script)["target"] == "some.other:Class"
