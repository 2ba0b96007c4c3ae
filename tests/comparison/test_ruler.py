"""The harness's own RULER: the sequential strategy answers as `hf`, and a board shows scores by length."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
import torch
import transformers
from lm_eval.tasks import TaskManager

from helpers import harness, harness_rows, tiny
from lm_eval_ape.comparison.compare import compare
from lm_eval_ape.comparison.options import Options

pytestmark = pytest.mark.slow

pytest.importorskip("wonderwords", reason="RULER draws its needles' keys from the package wonderwords")
LENGTHS = [4096, 8192]
SAMPLES = 2
# Named, so that nobody waits for an index of all of the harness's tasks.
RULER = str(Path(lm_eval.tasks.__file__).parent / "ruler")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model of 16k positions on disk, whose tokenizer RULER measures lengths by."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = tiny.make_tokenizer()
    config = transformers.LlamaConfig(**{**tiny.COMMON, "vocab_size": len(tokenizer), "max_position_embeddings": 16384})
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two samples a length, not five hundred, and no look for punctuation tables on the internet."""
    # Loaded again, since other tests may have loaded them with changes of their own.
    own = [name for name, module in sys.modules.items() if str(getattr(module, "__file__", "")).startswith(RULER)]
    for name in own:
        monkeypatch.delitem(sys.modules, name)
    import nltk

    niah = harness_rows.prepare_niah()
    generate = niah.generate_samples
    monkeypatch.setattr(nltk, "download", lambda *_, **__: True)
    monkeypatch.setattr(
        niah, "generate_samples", lambda *args, **given: generate(*args, **{**given, "num_samples": SAMPLES})
    )


@pytest.mark.usefixtures("few")
def test_a_board_of_three_strategies_by_length(model: str, tmp_path: Path) -> None:
    args = {"pretrained": model, "dtype": "float32", "chunks": 4}
    options = Options.read(
        {
            "model_args": args,
            "tasks": "niah_single_1",
            "strategies": ["sequential", "sink", "ape"],
            "metadata": {"max_seq_lengths": LENGTHS},
            "include_path": [RULER],
            "device": "cpu",
            "output_path": str(tmp_path / "board"),
            "resamples": 99,
        }
    )
    board = compare(options).as_json()
    assert board is not None
    assert board["tasks"]["niah_single_1"]["metric"] == "4096+8192"
    assert [row["label"] for row in board["rows"]] == ["sequential", "sink", "ape"]
    assert all(
        row["config"]["lm_eval_ape"]["contexts"] == {"niah_single_1": ["pattern (contexts.yaml)"]}
        for row in board["rows"][1:]
    )
    # Lengths leave room for the answer, so that each lies in the octave below it.
    buckets = [(bucket["from"], bucket["below"], bucket["documents"]) for bucket in board["lengths"]["buckets"]]
    assert buckets == [(2048, 4096, SAMPLES), (4096, 8192, SAMPLES)]
    for label, columns in board["lengths"]["rows"].items():
        scores = [sample["runs"][label]["score"] for sample in board["samples"]["niah_single_1"]]
        assert [column["mean"] for column in columns] == [sum(scores[:2]) / 2, sum(scores[2:]) / 2]


@pytest.mark.usefixtures("few")
def test_the_sequential_strategy_answers_as_hf(model: str) -> None:
    args = {"pretrained": model, "dtype": "float32"}
    manager = TaskManager(include_path=RULER, include_defaults=False, metadata={**args, "max_seq_lengths": LENGTHS[:1]})
    # Every loading draws other needles.
    task: Any = manager.load(["niah_multikey_2"])["tasks"]["niah_multikey_2"]
    runs = [
        harness.evaluate(name, {**args, **given}, task)
        for name, given in (("hf", {}), ("ape-hf", {"strategy": "sequential"}), ("ape-hf", {"strategy": "sink"}))
    ]
    answers = [harness.responses(run, "niah_multikey_2") for run in runs]
    assert answers[0] == answers[1]
    assert answers[2] == answers[0], "one chunk is the sequential model"
