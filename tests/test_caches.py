"""Everything that is kept from run to run is found again for what made it, and for nothing else."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from test_exactness import CHUNKS, PREFIX, QUERY, prompt_of, tokens
from transformers import AutoModelForCausalLM, PreTrainedModel

from helpers import harness, tiny
from lm_eval_ape.artefacts.points import Point
from lm_eval_ape.attention.factors import Factors
from lm_eval_ape.calibration.grid import measure
from lm_eval_ape.calibration.grid.measure import Meter
from lm_eval_ape.calibration.objective import teacher
from lm_eval_ape.calibration.objective.objective import Objective
from lm_eval_ape.calibration.objective.teacher import Teacher, ask
from lm_eval_ape.cli import main
from lm_eval_ape.encoding.kv_store.store import KVStore, StoreLimits, open_store
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness import reference_answers
from lm_eval_ape.harness.ape_hf import ApeHFLM
from lm_eval_ape.harness.response_cache import guard, identity
from lm_eval_ape.harness.samples import Sample
from lm_eval_ape.prompts.prompt import Prompt
from lm_eval_ape.settings.context_table import PACKAGED
from lm_eval_ape.settings.options import HarnessOptions
from lm_eval_ape.settings.strategy import SETTINGS, resolve

PROMPT = prompt_of(CHUNKS)
DOC = harness.documents(1)[0]
TEXT = harness.PROMPT.replace("{{context}}", DOC["context"]).replace("{{question}}", DOC["question"])


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint whose layers have a sliding window."""
    return tiny.save_checkpoint(tmp_path_factory.mktemp("mistral"), "mistral", torch.float64)


@pytest.fixture(scope="module")
def adapter(windowed: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], str]:
    """Folder of a LoRA adapter with the same weights whatever its `lora_alpha`."""
    peft = pytest.importorskip("peft")

    def make(alpha: int) -> str:
        torch.manual_seed(1)
        config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False, lora_alpha=alpha)
        folder = tmp_path_factory.mktemp(f"adapter{alpha}")
        peft.get_peft_model(AutoModelForCausalLM.from_pretrained(windowed), config).save_pretrained(folder)
        return str(folder)

    return make


def load(checkpoint: str, **given: Any) -> ApeHFLM:
    return ApeHFLM(**{"pretrained": checkpoint, "dtype": "float64", "device": "cpu", **given})


@torch.no_grad()
def edit_one_weight(lm: ApeHFLM) -> None:
    lm.model.model.layers[1].mlp.up_proj.weight[3, 5] += 1e-9


def edit_config(lm: ApeHFLM) -> None:
    lm.model.config.sliding_window = 3


# What changes a model's numbers: other arguments, or an edit of what was loaded.
MODELS: dict[str, dict[str, Any] | Callable[[ApeHFLM], None]] = {
    "one weight": edit_one_weight,
    "sliding window": edit_config,
    "dtype": {"dtype": "float32"},
    "rope theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}},
    "rope type": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
    "mixed precision": {"mixed_precision_dtype": "bfloat16"},
}
SAME: dict[str, dict[str, Any]] = {
    "nothing": {},
    "batch size": {"batch_size": 4},
    "where chunks are kept": {"kv_cache_bytes": "1MiB"},
}


def changed(checkpoint: str, change: dict[str, Any] | Callable[[ApeHFLM], None]) -> ApeHFLM:
    lm = load(checkpoint, **(change if isinstance(change, dict) else {}))
    if not isinstance(change, dict):
        change(lm)
    return lm


def with_settings(lm: ApeHFLM, **given: Any) -> ApeHFLM:
    """The same loaded model under other settings."""
    other = copy.copy(lm)
    other.engine = other.engine.under(resolve(given))
    return other


@pytest.fixture(scope="module")
def lm(checkpoint: str) -> ApeHFLM:
    """A loaded model that no test changes."""
    return load(checkpoint)


@pytest.fixture(scope="module")
def windowed_lm(windowed: str) -> ApeHFLM:
    """Another one."""
    return load(windowed)


# The harness's response cache

RESPONSES: dict[str, dict[str, Any]] = {
    "attn_implementation": {"attn_implementation": "eager"},
    "max_length": {"max_length": 512},
    "truncation": {"truncation": True},
    "add_bos_token": {"add_bos_token": False},
    "prefix_token_id": {"prefix_token_id": 7},
    "think_end_token": {"think_end_token": "</think>"},
    "softmax_dtype": {"softmax_dtype": "float32"},
    "revision": {"revision": "v2"},
}
# Another value of each setting, with what it needs beside it.
OTHERS: dict[str, dict[str, Any]] = {
    "strategy": {"strategy": "sink", "attn_temperature": 0.9, "attn_scale": 0.9},
    "attn_temperature": {"attn_temperature": 0.8},
    "attn_scale": {"attn_scale": 0.8},
    "scale_mode": {"scale_mode": "value"},
    "shared_prefix": {"shared_prefix": False},
    "chunking": {"chunking": "passages", "chunk_tokens": 4000},
    "chunk_tokens": {"chunk_tokens": 30},
    "max_chunks": {"max_chunks": 2},
    "chunks": {"chunks": 2},
    "retriever": {"retriever": "bm25", "max_chunks": 2},
    "preset": {"preset": "C200x20"},
    "separator": {"separator": "#"},
    "prefix": {"prefix": "Read:"},
    "positions": {"positions": "serial"},
    "top_chunks": {"top_chunks": 2},
    "select_over": {"select_over": "T"},
    "reselect": {"reselect": False},
    "recompute": {"positions": "serial", "recompute": 0.1},
    "recompute_by": {"recompute_by": "first"},
    "recompute_layers": {"recompute_layers": "last:2"},
    "recompute_seed": {"recompute_by": "random", "recompute_seed": 3},
    "keys_from": {"keys_from": "sequential"},
    "values_from": {"values_from": "sequential"},
    "context_field": {"context_field": "text"},
    "context_pattern": {"context_pattern": "(?P<context>.+)"},
    "context_table": {"context_table": str(PACKAGED)},
    "no_context": {"no_context": "sequential"},
    "attn_backend": {"attn_backend": "eager"},
}


def refusal(first: ApeHFLM, second: ApeHFLM) -> str | None:
    """Why a cache that the first model filled is not the second one's; None if it is."""
    responses: dict[str, Any] = {}
    guard(responses, identity(first))
    try:
        guard(responses, identity(second))
    except ApeError as error:
        return str(error)
    return None


@pytest.mark.parametrize("change", [*MODELS.values(), *RESPONSES.values()], ids=[*MODELS, *RESPONSES])
def test_responses_of_another_model_are_refused(windowed: str, windowed_lm: ApeHFLM, change: Any) -> None:
    assert refusal(windowed_lm, changed(windowed, change)) is not None


@pytest.mark.parametrize("name", SETTINGS)
def test_responses_of_any_other_setting_are_refused_and_it_is_named(lm: ApeHFLM, name: str) -> None:
    told = refusal(lm, with_settings(lm, **OTHERS[name]))
    assert told is not None
    assert f"{name}: " in told


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_responses_serve_what_changes_nothing(windowed: str, windowed_lm: ApeHFLM, change: dict[str, Any]) -> None:
    assert refusal(windowed_lm, load(windowed, **change)) is None


def test_responses_of_other_factors_are_refused(lm: ApeHFLM) -> None:
    first, second = with_settings(lm), with_settings(lm)
    for one, value in ((first, 0.9), (second, 0.90001)):
        one.engine = one.engine.under(one.settings.with_(factors=Factors(((0.9, value),) * 3, ((1.0, 1.0),) * 3)))
    assert "factors_sha256" in str(refusal(first, second))


def test_responses_of_another_tokenizer_or_template_are_refused(lm: ApeHFLM) -> None:
    words, template = copy.copy(lm), copy.copy(lm)
    words.tokenizer, template.tokenizer = copy.deepcopy(lm.tokenizer), copy.deepcopy(lm.tokenizer)
    words.tokenizer.add_tokens(["<new>"])
    template.tokenizer.chat_template = "{{ messages }}"
    for other in (words, template):
        assert "(tokenizer: " in str(refusal(lm, other))
    # Padding and truncation follow the last call and are no part of it.
    called = copy.copy(lm)
    called.tokenizer = copy.deepcopy(lm.tokenizer)
    called.tokenizer(["a", "a b c"], padding=True, truncation=True, max_length=2)
    assert refusal(lm, called) is None


def test_responses_of_an_adapter_trained_again_under_its_name_are_refused(
    windowed: str, adapter: Callable[[int], str]
) -> None:
    low, high = (load(windowed, peft=adapter(alpha)) for alpha in (8, 16))
    high.peft = low.peft
    assert "other settings (weights: " in str(refusal(low, high))


def test_responses_of_other_defaults_for_generation_are_refused(lm: ApeHFLM) -> None:
    first = identity(lm)
    lm.model.generation_config.repetition_penalty = 1.5
    second = identity(lm)
    lm.model.generation_config.repetition_penalty = None
    assert first["generation"] != second["generation"]


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("generate_until", (TEXT, {"max_gen_toks": 3, "until": []})),
        ("loglikelihood", (TEXT, " city")),
        ("loglikelihood_rolling", (TEXT,)),
    ],
)
def test_every_kind_of_request_is_guarded(windowed: str, kind: str, arguments: tuple[Any, ...], tmp_path: Path) -> None:
    file = str(tmp_path / "cache.db")
    request = Instance(kind, DOC, arguments, 0, metadata=("small", 0, 1))  # type: ignore[arg-type]
    first = CachingLM(load(windowed, chunks=2), file)
    answer = getattr(first, kind)([request])
    again = load(windowed, chunks=2)
    # A model that must not be called: the answer has to come from the file.
    again.model.forward = None
    assert getattr(CachingLM(again, file), kind)([request]) == answer
    with pytest.raises(ApeError, match=r"\(chunks: 2 there, 3 here\)"):
        CachingLM(load(windowed, chunks=3), file)


TASK = """
task: small
custom_dataset: !function data.load
test_split: test
output_type: multiple_choice
doc_to_text: {prompt}
doc_to_choice: choices
doc_to_target: answer
metric_list: [{{metric: acc}}]
"""
DATA = """
import datasets
def load(**_): return {{"test": datasets.Dataset.from_list({docs})}}
"""


def test_both_commands_refuse_the_cache_of_another_temperature(
    windowed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.py").write_text(DATA.format(docs=[DOC]), encoding="utf-8")
    (tmp_path / "small.yaml").write_text(TASK.format(prompt=json.dumps(harness.PROMPT)), encoding="utf-8")
    # The harness's own ten thousand tasks take half a minute to index.
    monkeypatch.setattr("lm_eval.tasks.TaskManager", partial(TaskManager, include_defaults=False))

    def arguments(temperature: float) -> list[str]:
        model = f"pretrained={windowed},dtype=float64,attn_temperature={temperature}"
        given = ["--model", "ape-hf", "--model_args", model, "--tasks", "small", "--include_path", str(tmp_path)]
        return ["run", *given, "--device", "cpu", "--use_cache", str(tmp_path / "cache")]

    monkeypatch.setattr(sys, "argv", ["lm-eval-ape"])
    main(arguments(0.8))
    assert main(arguments(0.7)) == 2
    assert "other settings (attn_temperature: 0.8 there, 0.7 here)" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["lm_eval", *arguments(0.7)])
    with pytest.raises(ApeError, match=r"other settings \(attn_temperature: 0.8 there, 0.7 here\)"):
        cli_evaluate()


# Teachers and divergences

POINTS = [Point(0.9, 0.8)]


def sample(prompt: Prompt = PROMPT) -> Sample:
    return Sample("task", 0, 0, prompt, "digest")


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """How often a teacher was asked, and how often a sample was scored."""
    counts = {"asked": 0, "scored": 0}
    score = measure.Scorer.score

    def count_ask(*given: Any, **named: Any) -> Teacher:
        counts["asked"] += 1
        return ask(*given, **named)

    def count_score(*given: Any, **named: Any) -> Any:
        counts["scored"] += 1
        return score(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher, "ask", count_ask)
        patch.setattr(measure.Scorer, "score", count_score)
        yield counts


def meter(lm: ApeHFLM, cache: Path, num_tokens: int = 3, history: str = "teacher", after_eos: str = "stop") -> Meter:
    return Meter(lm, Objective(num_tokens, history, after_eos), max_rows=None, cache=cache)


def made_again(first: Meter, second: Meter, prompt: Prompt = PROMPT, points: list[Point] = POINTS) -> tuple[bool, bool]:
    """Whether the second one asks a teacher, and scores, after the first one has; it measures what it would alone."""
    with counted():
        first.measure([sample()], POINTS)
    assert second.teachers.folder
    fresh = Meter(second.lm, second.objective, max_rows=None, cache=second.teachers.folder.parent)
    with counted() as counts:
        got = fresh.measure([sample(prompt)], points)
    expected = Meter(second.lm, second.objective, max_rows=None, cache=None).measure([sample(prompt)], points)
    assert got.kl == pytest.approx(expected.kl, abs=1e-12)
    return bool(counts["asked"]), bool(counts["scored"])


@pytest.mark.parametrize(
    "change", [*MODELS.values(), {"attn_implementation": "eager"}], ids=[*MODELS, "attention implementation"]
)
def test_teachers_and_divergences_of_another_model_are_made_again(
    windowed: str, windowed_lm: ApeHFLM, tmp_path: Path, change: Any
) -> None:
    first, second = meter(windowed_lm, tmp_path), meter(changed(windowed, change), tmp_path)
    assert made_again(first, second) == (True, True)


def test_teachers_of_an_adapter_with_another_scaling_are_made_again(
    windowed: str, adapter: Callable[[int], str], tmp_path: Path
) -> None:
    first, second = (meter(load(windowed, peft=adapter(alpha)), tmp_path) for alpha in (8, 16))
    assert made_again(first, second) == (True, True)


READ_OTHERWISE: dict[str, dict[str, Any]] = {
    name: OTHERS[name]
    for name in (
        *("scale_mode", "shared_prefix", "positions", "top_chunks", "keys_from", "values_from", "attn_backend"),
        *("select_over", "reselect"),
    )
}


@pytest.mark.parametrize("change", READ_OTHERWISE.values(), ids=READ_OTHERWISE)
def test_a_prompt_read_otherwise_has_the_same_teacher_and_other_divergences(
    lm: ApeHFLM, tmp_path: Path, change: dict[str, Any]
) -> None:
    first, second = meter(with_settings(lm), tmp_path), meter(with_settings(lm, **change), tmp_path)
    assert made_again(first, second) == (False, True)


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_how_a_model_is_run_makes_nothing_again(
    windowed: str, windowed_lm: ApeHFLM, tmp_path: Path, change: dict[str, Any]
) -> None:
    assert made_again(meter(windowed_lm, tmp_path), meter(load(windowed, **change), tmp_path)) == (False, False)


@pytest.mark.parametrize(
    "change",
    [{"attn_temperature": 0.5, "attn_scale": 0.5}, {"strategy": "sink"}, {"chunking": "passages"}],
    ids=["T and S", "strategy's name", "how it was cut"],
)
def test_settings_that_change_no_divergence_make_nothing_again(
    lm: ApeHFLM, tmp_path: Path, change: dict[str, Any]
) -> None:
    first, second = meter(with_settings(lm), tmp_path), meter(with_settings(lm, **change), tmp_path)
    assert made_again(first, second) == (False, False)


PROMPTS: dict[str, tuple[Prompt, tuple[bool, bool]]] = {
    "a chunk's token": (prompt_of([[*CHUNKS[0][:-1], 5], *CHUNKS[1:]]), (True, True)),
    "the prefix": (prompt_of(CHUNKS, prefix=tokens(4, 99)), (True, True)),
    "the query": (prompt_of(CHUNKS, query=tokens(5, 99)), (True, True)),
    "a border of chunks": (prompt_of([CHUNKS[0][:-1], [CHUNKS[0][-1], *CHUNKS[1]], *CHUNKS[2:]]), (False, True)),
    "the border of prefix": (prompt_of([[PREFIX[-1], *CHUNKS[0]], *CHUNKS[1:]], prefix=PREFIX[:-1]), (False, True)),
    "the border of query": (prompt_of([*CHUNKS[:-1], [*CHUNKS[-1], QUERY[0]]], query=QUERY[1:]), (False, True)),
}


@pytest.mark.parametrize(("prompt", "expected"), PROMPTS.values(), ids=PROMPTS)
def test_teachers_belong_to_the_ids_and_divergences_to_their_pieces(
    lm: ApeHFLM, tmp_path: Path, prompt: Prompt, expected: tuple[bool, bool]
) -> None:
    assert made_again(meter(lm, tmp_path), meter(lm, tmp_path), prompt) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"num_tokens": 4}, (True, True)),
        ({"num_tokens": 2}, (False, True)),
        ({"history": "own"}, (False, True)),
        ({"after_eos": "continue"}, (False, True)),
    ],
    ids=str,
)
def test_a_teacher_serves_every_objective_that_it_is_long_enough_for(
    lm: ApeHFLM, tmp_path: Path, change: dict[str, Any], expected: tuple[bool, bool]
) -> None:
    assert made_again(meter(lm, tmp_path), meter(lm, tmp_path, **change)) == expected


def test_a_teacher_that_ended_is_asked_again_where_it_must_go_on_and_cut_where_it_must_end(
    windowed: str, tmp_path: Path
) -> None:
    lm = load(windowed)
    (second,) = ask(lm, PROMPT.ids, 2, (), "sample").tokens.tolist()[1:]
    lm.model.generation_config.eos_token_id = [second]
    assert made_again(meter(lm, tmp_path), meter(lm, tmp_path, after_eos="continue")) == (True, True)
    assert made_again(meter(lm, tmp_path, after_eos="continue"), meter(lm, tmp_path)) == (False, False)
    # Other ends, the same teacher: it is cut elsewhere, and what it is compared with is measured anew.
    lm.model.generation_config.eos_token_id = None
    assert made_again(meter(lm, tmp_path), meter(lm, tmp_path)) == (False, False)


# Reference answers


@contextmanager
def counted_answers() -> Iterator[dict[str, int]]:
    """How many documents' answers were scored."""
    counts = {"scored": 0}

    def count(_: ApeHFLM, block: Any) -> list[list[float]]:
        counts["scored"] += len(block)
        return [[-1.0] * len(document.pairs) for document in block]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference_answers, "_nats", count)
        yield counts


def scored_again(first: ApeHFLM, second: ApeHFLM, cache: Path, **change: Any) -> bool:
    """Whether the second one scores an answer that the first one has scored."""

    def score(lm: ApeHFLM, doc: dict[str, Any], **config: Any) -> int:
        task = ConfigurableTask(config={**harness.task("toy", "generate_until", [doc]), "num_fewshot": 0, **config})
        with counted_answers() as counts:
            reference_answers.score_answers(lm, {"toy": task}, HarnessOptions(), cache=cache)
        return counts["scored"]

    assert score(first, DOC) == 1
    assert score(first, DOC) == 0
    return bool(score(second, {**DOC, **change.pop("doc", {})}, **change))


@pytest.mark.parametrize("change", [*MODELS.values(), *RESPONSES.values()], ids=[*MODELS, *RESPONSES])
def test_answers_are_scored_again_by_another_model(
    windowed: str, windowed_lm: ApeHFLM, tmp_path: Path, change: Any
) -> None:
    assert scored_again(windowed_lm, changed(windowed, change), tmp_path)


@pytest.mark.parametrize("name", SETTINGS)
def test_answers_are_scored_again_under_any_other_setting(lm: ApeHFLM, tmp_path: Path, name: str) -> None:
    assert scored_again(lm, with_settings(lm, **OTHERS[name]), tmp_path)


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_answers_serve_what_changes_nothing(
    windowed: str, windowed_lm: ApeHFLM, tmp_path: Path, change: dict[str, Any]
) -> None:
    assert not scored_again(windowed_lm, load(windowed, **change), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"doc_to_target": "no"},
        {"target_delimiter": "\n"},
        {"doc_to_text": "{{question}}"},
        {"doc": {"question": "Which one?"}},
        # What a prompt is cut by need not stand in it.
        {"doc": {"source": "elsewhere"}},
    ],
    ids=["answer", "delimiter", "prompt", "question", "document"],
)
def test_other_answers_and_prompts_are_scored(lm: ApeHFLM, tmp_path: Path, change: dict[str, Any]) -> None:
    assert scored_again(lm, lm, tmp_path, **change)


# Keys and values


def stored(model: PreTrainedModel, folder: Path, facts: str = "None") -> KVStore:
    store = open_store(model, torch.device("cpu"), StoreLimits(0, folder, None), facts=facts)
    assert store is not None
    return store


@pytest.mark.parametrize("change", MODELS.values(), ids=MODELS)
def test_chunks_of_another_model_are_encoded_again(
    windowed: str, windowed_lm: ApeHFLM, tmp_path: Path, change: Any
) -> None:
    Engine(windowed_lm.model, resolve({}), store=stored(windowed_lm.model, tmp_path)).encode(PROMPT)
    lm = changed(windowed, change)
    second = stored(lm.model, tmp_path, str(lm.mixed_precision_dtype))
    Engine(lm.model, resolve({}), store=second).encode(PROMPT)
    assert second.counts.disk_hits == 0
    assert second.counts.misses == 1 + len(CHUNKS)


@pytest.mark.parametrize(
    ("prompt", "given", "hits"),
    [
        (PROMPT, {}, 5),
        (prompt_of(CHUNKS, query=tokens(3, 9)), {}, 5),
        (prompt_of(CHUNKS[::-1]), {}, 5),
        (PROMPT, {"attn_temperature": 0.5, "attn_scale": 2.0, "scale_mode": "additive"}, 5),
        (PROMPT, {"strategy": "sink+selective"}, 5),
        # The chunk whose token changed, and no other.
        (prompt_of([[*CHUNKS[0][:-1], 5], *CHUNKS[1:]]), {}, 4),
        (prompt_of(CHUNKS, prefix=[*PREFIX[:-1], 5]), {}, 0),
        # Moved from where they were encoded.
        (PROMPT, {"positions": "serial"}, 5),
        (PROMPT, {"shared_prefix": False}, 0),
        (PROMPT, {"attn_backend": "eager"}, 0),
        # Prefix and chunks as they were, for the queries' sake; the sequential pass is one piece more.
        (PROMPT, {"keys_from": "sequential"}, 5),
    ],
    ids=str,
)
def test_chunks_are_found_again_by_what_they_depend_on(
    tmp_path: Path, prompt: Prompt, given: dict[str, Any], hits: int
) -> None:
    model = tiny.make_model()
    Engine(model, resolve({}), store=stored(model, tmp_path)).encode(PROMPT)
    store = stored(model, tmp_path)
    Engine(model, resolve(given), store=store).encode(prompt)
    assert store.counts.disk_hits == hits


@pytest.mark.skipif(torch.__version__ < "2.9", reason="PyTorch 2.5 knows no autocast for weights that lie nowhere")
def test_offloaded_weights_are_known_by_their_numbers_too(checkpoint: str, tmp_path: Path) -> None:
    from lm_eval_ape.artefacts.model_digest import full_digest

    laid_out, plain = load(checkpoint, parallelize=True), load(checkpoint)
    assert any(weight.device.type == "meta" for weight in laid_out.model.parameters())
    assert full_digest(laid_out.model) == full_digest(plain.model)
