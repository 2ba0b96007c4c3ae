"""No file runs code: not a checkpoint's own modules, not a pickle, not YAML; and damaged checkpoints are a sentence."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import lm_eval_ape
from helpers import tiny
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.arguments import split_arguments
from lm_eval_ape.tasks.perplexity.tokens import load_tokenizer

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("lm_eval_ape", "tasks", "calibration")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny.save_checkpoint(tmp_path_factory.mktemp("whole")))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "checkpoint"))


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """A file that planted code writes."""
    return tmp_path / "ran"


def edit(folder: Path, file: str, **changed: object) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def plant(folder: Path, ran: Path) -> None:
    (folder / "evil.py").write_text(
        f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast\n"
        # Classes of its own, as transformers remembers of a class where it came from.
        "class Config(LlamaConfig):\n    model_type = 'evil'\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n"
        "class Tokenizer(PreTrainedTokenizerFast):\n    pass\n"
    )


def plant_model(folder: Path, ran: Path) -> None:
    plant(folder, ran)
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    edit(folder, "config.json", model_type="evil", auto_map=auto_map)


def plant_tokenizer(folder: Path, ran: Path) -> None:
    plant(folder, ran)
    names = ["evil.Tokenizer"] * 2
    edit(folder, "tokenizer_config.json", tokenizer_class="Evil", auto_map={"AutoTokenizer": names})


class Runs:
    """Unpickled, it makes a file."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {self.ran}",)


@pytest.mark.parametrize("plant_code", [plant_model, plant_tokenizer])
@pytest.mark.parametrize("extra", [{}, {"frobnicate": 3}])
def test_a_checkpoints_own_code_runs_only_when_asked_for(
    folder: Path, ran: Path, plant_code: Callable[[Path, Path], None], extra: dict[str, int]
) -> None:
    plant_code(folder, ran)
    with pytest.raises(ApeError, match=r"trust_remote_code=True|no argument 'frobnicate'"):
        ApeHFLM(str(folder), device="cpu", **extra)
    if plant_code is plant_tokenizer:
        with pytest.raises(ApeError, match="brings Python code of its own"):
            load_tokenizer({"pretrained": str(folder)})
    assert not ran.exists()


def test_planted_code_does_run_when_it_is_trusted(folder: Path, ran: Path) -> None:
    plant_model(folder, ran)
    ApeHFLM(str(folder), device="cpu", trust_remote_code=True)
    assert ran.exists()


@pytest.mark.parametrize("bare", [True, False])
def test_a_pickle_among_the_weights_is_not_run(folder: Path, ran: Path, bare: bool) -> None:
    (folder / "model.safetensors").unlink()
    if bare:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs(ran)))
    else:
        torch.save({"model.embed_tokens.weight": Runs(ran)}, folder / "pytorch_model.bin")
    # With a PyTorch before 2.6, transformers reads no pickle at all.
    with pytest.raises(
        ApeError, match=r"is not run\. Give a checkpoint with safetensors|vulnerability issue in `torch\.load"
    ):
        ApeHFLM(str(folder), device="cpu")
    with pytest.raises(ApeError, match="weights_only=False would load pickles"):
        split_arguments({"pretrained": str(folder), "weights_only": False})
    assert not ran.exists()


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("config.json", b"{", "is not a valid JSON file"),
        ("config.json", b"", "is not a valid JSON file"),
        ("config.json", b"[]", "Unrecognized model|list indices"),
        ("config.json", None, "Unrecognized model"),
        ("model.safetensors", b"", "header ?too ?small"),
        ("model.safetensors", b"garbage" * 20, "header ?too ?large"),
        ("model.safetensors", None, "no file named"),
        ("tokenizer.json", b"{", "Expecting property name"),
        ("tokenizer_config.json", b"{", "Expecting property name"),
    ],
)
def test_a_damaged_checkpoint_is_a_sentence(folder: Path, file: str, content: bytes | None, sentence: str) -> None:
    (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
    with pytest.raises(ApeError, match=f"The model {folder} cannot be loaded: .*(?i:{sentence})"):
        ApeHFLM(str(folder), device="cpu")


def test_weights_that_are_cut_off_or_of_another_model_are_a_sentence(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ApeError, match=r"file not fully covered|MetadataIncompleteBuffer"):
        ApeHFLM(str(folder), device="cpu")
    (folder / "model.safetensors").write_bytes(weights)
    edit(folder, "config.json", hidden_size=64)
    with pytest.raises(ApeError, match="its weights have other shapes"):
        ApeHFLM(str(folder), device="cpu")
    edit(folder, "config.json", hidden_size="many")
    with pytest.raises(ApeError, match=r"hidden_size|argument 'size'"):
        ApeHFLM(str(folder), device="cpu")


@pytest.mark.parametrize(
    "changed",
    [
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 0},
        {"num_attention_heads": 0},
        {"hidden_size": -4},
        {"rope_parameters": []},
        {"rope_parameters": {"rope_type": "unheard"}},
        {"model_type": ["llama"]},
        {"dtype": "float33"},
    ],
    ids=str,
)
def test_a_config_that_no_model_has_is_a_sentence(folder: Path, changed: dict[str, object]) -> None:
    edit(folder, "config.json", **changed)
    with pytest.raises(ApeError, match=rf"The model {folder} cannot be loaded: |config\.json gives it -?\d layers"):
        ApeHFLM(str(folder), device="cpu")


@pytest.mark.parametrize("index", ["[]", "{}", '{"metadata": {}, "weight_map": {"a": "../../outside.safetensors"}}'])
def test_an_index_of_weights_that_leads_nowhere_is_a_sentence(folder: Path, index: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ApeError, match=f"The model {folder} cannot be loaded: "):
        ApeHFLM(str(folder), device="cpu")


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call by its dotted name, with names of imports written out."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, _, rest = ast.unparse(node.func).partition(".")
            yield f"{names.get(first, first)}.{rest}".rstrip("."), node


def unsafe(name: str, call: ast.Call) -> bool:
    last = name.rpartition(".")[2]
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    arguments = [ast.unparse(argument) for argument in call.args] + list(keywords.values())
    loads = last in ("load", "loads", "Unpickler", "read_pickle")
    return (
        (loads and name.partition(".")[0] in ("torch", "pickle", "joblib", "dill", "cloudpickle", "marshal", "shelve"))
        or last in ("read_pickle", "unsafe_load", "full_load", "unsafe_load_all", "full_load_all")
        or (
            name in ("yaml.load", "yaml.load_all") and not {"_Loader", "yaml.SafeLoader", "SafeLoader"} & set(arguments)
        )
        or keywords.get("allow_pickle", "False") != "False"
        or keywords.get("trust_remote_code", "False") != "False"
        or name in ("eval", "exec", "os.system")
        or keywords.get("shell", "False") != "False"
    )


def test_the_package_loads_no_pickle_runs_no_code_and_trusts_none() -> None:
    found = {
        (path.relative_to(REPOSITORY).as_posix(), name)
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
        for name, call in calls(ast.parse(path.read_text(encoding="utf-8")))
        if unsafe(name, call)
    }
    assert found == set()
    assert Path(lm_eval_ape.__file__).is_relative_to(REPOSITORY)


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load(p)", "from torch import load\nload(p)", "import pickle as p\np.loads(b)",
        "from pickle import Unpickler\nUnpickler(f)", "import yaml\nyaml.load(t)", "import yaml\nyaml.unsafe_load(t)",
        "import numpy as np\nnp.load(p, allow_pickle=True)", "m(p, trust_remote_code=True)",
        "eval(t)", "import joblib\njoblib.load(p)",
        "import subprocess\nsubprocess.run(c, shell=True)", "import pandas\npandas.read_pickle(p)",
    ],
)  # fmt: skip
def test_the_check_would_find_it(code: str) -> None:
    assert any(unsafe(name, call) for name, call in calls(ast.parse(code)))
