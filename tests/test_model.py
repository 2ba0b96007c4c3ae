"""`ape-hf` through the harness: against its own `hf`, and strategy against strategy."""

from __future__ import annotations

import json
import math
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizer

from helpers import dense, harness, tiny
from helpers.machine import CPU_BACKENDS
from lm_eval_ape import __version__
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM

DOCS = harness.documents(5)
KINDS = ["generate_until", "multiple_choice", "loglikelihood_rolling"]


def flat(value: Any) -> list[Any]:
    return [x for item in value for x in flat(item)] if isinstance(value, (list, tuple)) else [value]


def assert_same(got: Any, expected: Any) -> None:
    got, expected = flat(got), flat(expected)
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        if isinstance(one, float):
            assert one == pytest.approx(other, abs=1e-9)
        else:
            assert one == other


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_sequential_is_the_harnesss_hf(checkpoint: str, kind: str, batch_size: int) -> None:
    task = harness.task("small", kind, DOCS)
    runs = [
        harness.evaluate(model, {"pretrained": checkpoint, **args}, task, batch_size=batch_size)
        for model, args in [("hf", {}), ("ape-hf", {"strategy": "sequential"})]
    ]
    assert_same(*(harness.responses(run, "small") for run in runs))
    assert runs[0]["results"]["small"] == runs[1]["results"]["small"]
    assert [s["prompt_hash"] for s in runs[0]["samples"]["small"]] == [
        s["prompt_hash"] for s in runs[1]["samples"]["small"]
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["parallel", "sink", "selective", "value_only", "recompute"])
def test_one_chunk_gives_hfs_answers_too(checkpoint: str, kind: str, strategy: str) -> None:
    task = harness.task("small", kind, DOCS)
    expected = harness.evaluate("hf", {"pretrained": checkpoint}, task)
    got = harness.evaluate("ape-hf", {"pretrained": checkpoint, "strategy": strategy}, task, batch_size=2)
    assert_same(harness.responses(got, "small"), harness.responses(expected, "small"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["parallel", "sink", "ape", "sink+selective", "recompute"])
def test_batching_changes_no_answer(checkpoint: str, kind: str, strategy: str) -> None:
    task = harness.task("small", kind, DOCS)
    args = {"pretrained": checkpoint, "strategy": strategy, "chunking": "passages"}
    one, four = (harness.evaluate("ape-hf", args, task, batch_size=size) for size in (1, 4))
    assert_same(harness.responses(one, "small"), harness.responses(four, "small"))
    assert one["results"]["small"] == four["results"]["small"]


def test_several_chunks_score_options_as_the_dense_reference(checkpoint: str) -> None:
    args = {"pretrained": checkpoint, "chunking": "passages", "attn_temperature": 0.8, "attn_scale": 0.7}
    results = harness.evaluate("ape-hf", args, harness.task("small", "multiple_choice", DOCS[:2]))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    for doc, sample in zip(DOCS, results["samples"]["small"], strict=False):
        for choice, (score, _) in zip(doc["choices"], (r[0] for r in sample["resps"]), strict=True):
            before, after = "Answer the question.\n", f"\n\nQuestion: {doc['question']}\nAnswer:"
            passages = [f"Passage {text}" for text in doc["context"].split("Passage ")[1:]]
            ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, *passages, after)]
            option = tokenizer(" " + choice, add_special_tokens=False)["input_ids"]
            whole = tokenizer(before + doc["context"] + after + " " + choice)["input_ids"]
            assert [tokenizer.bos_token_id, *chain.from_iterable(ids), *option] == whole
            prefix, query = [tokenizer.bos_token_id, *ids[0]], ids[-1] + option[:-1]
            layout = dense.lay_out(prefix, ids[1:-1], query, "shared", True)
            logits = dense.dense_logits(model, layout, temperature=0.8, scale=0.7)[0, -len(option) :]
            expected = logits.log_softmax(-1).gather(-1, torch.tensor(option)[:, None]).sum()
            assert float(score) == pytest.approx(float(expected), abs=1e-9)


def test_strategies_disagree_where_chunks_are_many(checkpoint: str) -> None:
    scores = []
    for strategy in ("sequential", "parallel", "sink", "ape"):
        args = {"pretrained": checkpoint, "strategy": strategy, "chunking": "passages"}
        results = harness.evaluate("ape-hf", args, harness.task("small", "loglikelihood_rolling", DOCS[:1]))
        scores.append(round(float(harness.responses(results, "small")[0][0][0]), 6))
    assert len(set(scores)) == 4


@pytest.mark.parametrize("strategy", ["sequential", "ape"])
def test_chat_templates_and_few_shot_prompts_reach_both_models_alike(checkpoint: str, strategy: str) -> None:
    task = harness.task(
        "small",
        "generate_until",
        DOCS,
        fewshot_split="test",
        num_fewshot=1,
        description="Be brief. ",
    )
    options = {"apply_chat_template": True, "system_instruction": "You are helpful."}
    runs = [
        harness.evaluate(model, {"pretrained": checkpoint, **args}, task, **options)
        for model, args in [("hf", {}), ("ape-hf", {"strategy": strategy, "chunking": "passages"})]
    ]
    prompts = [[sample["arguments"] for sample in run["samples"]["small"]] for run in runs]
    assert prompts[0] == prompts[1]
    if strategy == "sequential":
        assert_same(*(harness.responses(run, "small") for run in runs))


def test_few_shot_prompts_of_any_task_are_split_by_the_separator(checkpoint: str, tmp_path: Path) -> None:
    docs = [{"question": f"Which {word}?", "choices": ["a", "b", "c"], "answer": 0} for word in harness.WORDS]
    task = harness.task(
        "shots", "multiple_choice", docs, doc_to_text="Q: {{question}}\nA:", fewshot_split="test", num_fewshot=4
    )
    log = tmp_path / "requests.jsonl"
    args = {"pretrained": checkpoint, "chunking": "separator", "request_log": str(log)}
    harness.evaluate("ape-hf", args, task, limit=3)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert {len(record["chunk_tokens"]) for record in records} == {4}
    assert {record["task"] for record in records} == {"shots"}


def test_results_say_what_made_the_number(checkpoint: str) -> None:
    args = {"pretrained": checkpoint, "attn_temperature": 0.8, "chunking": "passages", "max_chunks": 2}
    results = harness.evaluate("ape-hf", args, harness.task("small", "generate_until", DOCS[:1]))
    encoding = json.loads(json.dumps(results["config"]["lm_eval_ape"]))
    assert encoding["version"] == __version__
    expected = {
        "strategy": "ape",
        "attn_temperature": 0.8,
        "attn_scale": 0.9,
        "chunking": "passages",
        "max_chunks": 2,
        "positions": "shared",
        "attn_backend": "auto",
        "attn_backends_used": CPU_BACKENDS[:1],
    }
    assert expected.items() <= encoding.items()


def test_a_response_cache_serves_only_the_settings_that_filled_it(checkpoint: str, tmp_path: Path) -> None:
    task = harness.task("small", "generate_until", DOCS[:2])
    cache = {"use_cache": str(tmp_path / "cache")}
    args = {"pretrained": checkpoint, "chunking": "passages"}
    first = harness.evaluate("ape-hf", args, task, **cache)
    again = harness.evaluate("ape-hf", args, task, **cache)
    assert harness.responses(first, "small") == harness.responses(again, "small")
    with pytest.raises(ApeError, match=r"other settings \(attn_temperature: 0.9 there, 0.5 here\)"):
        harness.evaluate("ape-hf", {**args, "attn_temperature": 0.5}, task, **cache)
    harness.evaluate("hf", {"pretrained": checkpoint}, task, use_cache=str(tmp_path / "other"))
    with pytest.raises(ApeError, match="filled by another model"):
        harness.evaluate("ape-hf", args, task, use_cache=str(tmp_path / "other"))


def test_stop_strings_and_sampling_are_the_parents(checkpoint: str) -> None:
    task = harness.task("small", "generate_until", DOCS[:2])
    args = {"pretrained": checkpoint, "strategy": "sink"}
    whole = harness.responses(harness.evaluate("ape-hf", args, task), "small")[0][0][0]
    task["generation_kwargs"]["until"] = [whole[2:4]]
    cut = harness.responses(harness.evaluate("ape-hf", args, task), "small")[0][0][0]
    assert cut == whole.split(whole[2:4])[0]
    task["generation_kwargs"] = {"max_gen_toks": 6, "do_sample": True, "temperature": 1.5, "until": []}
    sampled = [
        harness.responses(
            harness.evaluate(model, {"pretrained": checkpoint, **extra}, task, torch_random_seed=7), "small"
        )
        for model, extra in [("hf", {}), ("ape-hf", {"strategy": "sink"})]
    ]
    assert sampled[0] == sampled[1]


def test_a_loaded_model_and_tokenizer_can_be_given(checkpoint: str) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    lm = ApeHFLM(model, tokenizer=tokenizer, strategy="sink")
    request = Instance("generate_until", DOCS[0], ("Go: " + DOCS[0]["context"] + " Who?", {"max_gen_toks": 3}), 0)
    assert isinstance(lm.generate_until([request])[0], str)


def test_a_lora_adapter_is_read_in_every_piece(checkpoint: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    torch.manual_seed(1)
    adapted = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path)
    task = harness.task("small", "generate_until", DOCS[:2])
    runs = [
        harness.evaluate(name, {"pretrained": checkpoint, **extra}, task)
        for name, extra in [
            ("hf", {"peft": str(tmp_path)}),
            ("ape-hf", {"peft": str(tmp_path), "strategy": "sink"}),
            ("hf", {}),
        ]
    ]
    with_lora, ours, without = (harness.responses(run, "small") for run in runs)
    assert with_lora == ours != without


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"attn_temprature": 0.9}, "ape-hf has no argument 'attn_temprature'. Did you mean 'attn_temperature'?"),
        ({"dtpye": "float16"}, "ape-hf has no argument 'dtpye'. Did you mean 'dtype'?"),
        ({"chunking": "passage"}, "Did you mean 'passages'?"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_loaded(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ApeError) as error:
        ApeHFLM(pretrained="no/such-model" if "chunking" in given else tiny.SPECIALS, **given)  # type: ignore[arg-type]
    assert sentence in str(error.value)


def test_a_missing_model_is_told_in_a_sentence() -> None:
    with pytest.raises(ApeError, match=r"model_args must name the model: pretrained=MODEL"):
        ApeHFLM.create_from_arg_string("strategy=ape", {"batch_size": 1})


def test_a_loaded_model_without_a_tokenizer_asks_for_one_in_a_sentence() -> None:
    with pytest.raises(
        ApeError, match=r"^The tokenizer of the loaded LlamaForCausalLM cannot be loaded: .*tokenizer="
    ) as at:
        ApeHFLM(pretrained=tiny.make_model(), device="cpu")
    assert len(str(at.value)) < 500


def test_a_request_log_in_a_missing_folder_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ApeError, match="lies in a folder that does not exist"):
        ApeHFLM("no/such-model", request_log="no/such/folder/requests.jsonl")


def test_a_field_of_the_models_configuration_is_a_valid_argument(checkpoint: str) -> None:
    lm = ApeHFLM(pretrained=checkpoint, rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    assert lm.config.rope_parameters["rope_theta"] == 5000.0 or lm.model.config.rope_parameters["rope_theta"] == 5000.0


def test_a_tokenizer_without_offsets_is_refused(checkpoint: str) -> None:
    class Slow(PreTrainedTokenizer):
        vocab_size = 1

        def get_vocab(self) -> dict[str, int]:
            return {"a": 0}

    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    with pytest.raises(ApeError, match="Slow cannot tell which characters its tokens cover"):
        ApeHFLM(model, tokenizer=Slow())


def test_rolling_likelihood_of_one_text_is_the_sum_over_its_pieces(checkpoint: str) -> None:
    """Against the definition: each token given what it sees, computed piece by piece with the dense reference."""
    doc = DOCS[1]
    args = {"pretrained": checkpoint, "strategy": "sink", "chunking": "passages"}
    results = harness.evaluate("ape-hf", args, harness.task("small", "loglikelihood_rolling", [doc]))
    got = float(harness.responses(results, "small")[0][0][0])
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)

    def scores(ids: list[int]) -> list[float]:
        with torch.no_grad():
            rows = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return [float(rows[i, ids[i + 1]]) for i in range(len(ids) - 1)]

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    prefix = [tokenizer.bos_token_id, tokenizer.bos_token_id, *encode("Answer the question.\n")]
    passages = [encode(f"Passage {text}") for text in doc["context"].split("Passage ")[1:]]
    query = encode(f"\n\nQuestion: {doc['question']}\nAnswer:")
    expected = sum(scores(prefix)) + sum(sum(scores(prefix + passage)[len(prefix) - 1 :]) for passage in passages)
    with torch.no_grad():
        last = model(torch.tensor([prefix + passages[-1]])).logits[0, -1].log_softmax(-1)
    expected += float(last[query[0]])
    layout = dense.lay_out(prefix, passages, query, "shared", True)
    rows = dense.dense_logits(model, layout)[0].log_softmax(-1)
    expected += sum(float(rows[i, query[i + 1]]) for i in range(len(query) - 1))
    assert math.isfinite(got)
    assert got == pytest.approx(expected, abs=1e-9)


def test_an_automatic_batch_size_changes_no_answer(checkpoint: str) -> None:
    for kind in ("generate_until", "multiple_choice"):
        task = harness.task("small", kind, DOCS)
        args = {"pretrained": checkpoint, "chunking": "passages", "max_length": 200}
        auto = harness.evaluate("ape-hf", args, task, batch_size="auto", max_batch_size=2)
        assert_same(
            harness.responses(auto, "small"), harness.responses(harness.evaluate("ape-hf", args, task), "small")
        )


def test_unconditional_likelihoods_are_the_harnesss(checkpoint: str) -> None:
    task = harness.task("small", "multiple_choice", DOCS[:2], metric_list=[{"metric": "acc_mutual_info"}])
    runs = [
        harness.evaluate(model, {"pretrained": checkpoint, **args}, task)
        for model, args in [("hf", {}), ("ape-hf", {"strategy": "sink"})]
    ]
    assert_same(*(harness.responses(run, "small") for run in runs))


@pytest.mark.skipif(torch.__version__ < "2.9", reason="PyTorch 2.5 knows no autocast for weights that lie nowhere")
def test_a_model_laid_out_by_accelerate_gives_the_same_answers(checkpoint: str) -> None:
    """`parallelize=True` without a GPU offloads the weights, which then lie on no device of their own."""
    for kind in KINDS:
        task = harness.task("small", kind, DOCS[:2])
        args = {"pretrained": checkpoint, "chunking": "passages"}
        laid_out = harness.evaluate("ape-hf", {**args, "parallelize": True}, task)
        assert_same(
            harness.responses(laid_out, "small"), harness.responses(harness.evaluate("ape-hf", args, task), "small")
        )


@pytest.mark.parametrize("kind", ["generate_until", "multiple_choice"])
def test_with_a_retriever_one_chunk_under_sink_is_the_sequential_model_on_what_was_kept(
    kind: str, checkpoint: str, tmp_path: Path
) -> None:
    retrieval = {"chunking": "passages", "retriever": "bm25", "max_chunks": 1}
    logs = [tmp_path / "sequential.jsonl", tmp_path / "sink.jsonl"]
    sequential, sink = (
        harness.evaluate(
            "ape-hf",
            {"pretrained": checkpoint, "strategy": strategy, "request_log": str(log), **retrieval},
            harness.task("small", kind, DOCS),
        )
        for strategy, log in zip(("sequential", "sink"), logs, strict=True)
    )
    assert_same(harness.responses(sequential, "small"), harness.responses(sink, "small"))
    one, other = ([json.loads(line) for line in log.read_text().splitlines()] for log in logs)
    assert [record["kept_chunks"] for record in one] == [record["kept_chunks"] for record in other]
    assert all(record["chunks"] == 3 and len(record["kept_chunks"]) == 1 for record in one)
    assert all(record["dropped_tokens"] > 0 for record in one)
    whole = harness.evaluate(
        "ape-hf", {"pretrained": checkpoint, "strategy": "sequential"}, harness.task("s", kind, DOCS)
    )
    assert harness.responses(whole, "s") != harness.responses(sequential, "small")


def test_a_retriever_is_refused_where_every_token_is_to_be_scored(checkpoint: str) -> None:
    args = {"pretrained": checkpoint, "preset": "C200x20", "strategy": "sequential"}
    with pytest.raises(ApeError, match=r"Task small scores whole texts .* retriever=bm25 would drop parts"):
        harness.evaluate("ape-hf", args, harness.task("small", "loglikelihood_rolling", DOCS))


@pytest.mark.parametrize(
    ("kind", "method"), [("generate_until", "_model_generate"), ("multiple_choice", "_model_call")]
)
def test_short_memory_halves_the_batch_and_changes_no_answer(
    checkpoint: str, kind: str, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    task = harness.task("small", kind, DOCS)
    args = {"pretrained": checkpoint, "chunking": "passages", "kv_cache_bytes": "1MiB"}
    expected = harness.evaluate("ape-hf", args, task, batch_size=4)
    sizes: list[int] = []
    owner = HFLM if kind == "generate_until" else ApeHFLM
    work = getattr(owner, method)

    def short(self: ApeHFLM, *given: Any, **options: Any) -> torch.Tensor:
        rows = options["context"] if "context" in options else given[0]
        sizes.append(len(rows))
        if len(rows) > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return work(self, *given, **options)

    monkeypatch.setattr(owner, method, short)
    got = harness.evaluate("ape-hf", args, task, batch_size=4)
    assert_same(harness.responses(got, "small"), harness.responses(expected, "small"))
    # Once with the kept chunks and once without, then in halves; what comes later starts small.
    rows = 4 if kind == "generate_until" else len(DOCS[0]["choices"])
    assert sizes[:4] == [rows, rows, 2, 1]
    assert set(sizes[4:]) == {1}
    assert "going on with 1 requests at a time" in caplog.text


@pytest.mark.parametrize("kept", ["0", "1MiB"])
def test_memory_too_short_for_one_request_is_an_error(
    checkpoint: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*given: Any, **options: Any) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(HFLM, "_model_generate", short)
    args = {"pretrained": checkpoint, "chunking": "passages", "kv_cache_bytes": kept}
    with pytest.raises(torch.cuda.OutOfMemoryError):
        harness.evaluate("ape-hf", args, harness.task("small", "generate_until", DOCS), batch_size=4)


@pytest.mark.parametrize("pretrained", ["/no/such/folder", "no-such-organisation/no-such-model"])
def test_a_model_that_is_not_there_is_told_in_a_sentence(pretrained: str) -> None:
    with pytest.raises(ApeError, match=f"The model {pretrained} cannot be loaded: .*a folder or the name of a model"):
        ApeHFLM(pretrained, device="cpu")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("share", [0.0, 0.5], ids=["empty", "half"])
def test_a_model_that_is_half_copied_is_told_in_a_sentence(
    checkpoint: str, name: str, share: float, tmp_path: Path
) -> None:
    for path in Path(checkpoint).iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[: int(share * len(content))] if path.name == name else content)
    with pytest.raises(ApeError, match=f"The model {tmp_path} cannot be loaded: .* with all of its files whole"):
        ApeHFLM(str(tmp_path), device="cpu")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_model_whose_files_are_gone_is_told_in_a_sentence(checkpoint: str, name: str, tmp_path: Path) -> None:
    for path in Path(checkpoint).iterdir():
        if path.name != name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ApeError, match=f"The model {tmp_path} cannot be loaded: .* with all of its files whole"):
        ApeHFLM(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"add_bos_token": True},
        {"add_bos_token": False},
        {"prefix_token_id": 7},
        {"prefix_token_id": 7, "add_bos_token": True},
        {"truncation": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("bos", [True, False], ids=["BOS", "no BOS"])
def test_ids_are_those_of_hf_for_every_argument_of_the_tokenizer(given: dict[str, Any], bos: bool) -> None:
    """Of what is generated from, and of what is scored, with and without a chat template that writes BOS itself."""
    tokenizer = tiny.make_tokenizer()
    if not bos:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    model = tiny.make_model(vocab_size=len(tokenizer))
    hf = HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", **given)
    plain = harness.PROMPT.replace("{{context}}", DOCS[0]["context"]).replace("{{question}}", "Who?")
    texts = [plain, hf.apply_chat_template([{"role": "user", "content": plain}])]
    for strategy in ("sequential", "sink"):
        ape = ApeHFLM(pretrained=model, tokenizer=tokenizer, device="cpu", strategy=strategy, **given)
        for text in texts:
            generated = Instance("generate_until", DOCS[0], (text, {"max_gen_toks": 3}), 0, metadata=("small", 0, 1))
            scored = Instance("loglikelihood", DOCS[0], (text, " city"), 0, metadata=("small", 0, 1))
            prompts = [ape.split_requests([request], [3], quiet=True)[text] for request in (generated, scored)]
            assert list(prompts[0].ids) == hf.tok_batch_encode([text])[0][0].tolist()
            # The harness moves white space at a prompt's end to what is scored.
            assert list(prompts[1].ids) == hf._encode_pair(text, " city")[0]
            assert bool(prompts[0].chunks) == (strategy == "sink")


def test_a_tokenizer_that_truncates_prompts_gives_the_ids_of_hf() -> None:
    tokenizer = tiny.make_tokenizer()
    tokenizer.model_max_length = 40
    model = tiny.make_model(vocab_size=len(tokenizer))
    given = {"pretrained": model, "tokenizer": tokenizer, "device": "cpu", "truncation": True, "max_length": 512}
    hf, ape = HFLM(**given), ApeHFLM(**given, strategy="sequential")
    text = harness.PROMPT.replace("{{context}}", DOCS[0]["context"])
    request = Instance("generate_until", DOCS[0], (text, {"max_gen_toks": 3}), 0, metadata=("small", 0, 1))
    expected = hf.tok_batch_encode([text], truncation=True)[0][0].tolist()
    assert list(ape.split_requests([request], [3], quiet=True)[text].ids) == expected
    assert len(expected) == 40


def test_a_question_that_truncation_cuts_off_is_told(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = tiny.make_tokenizer()
    tokenizer.model_max_length = 40
    given = {"tokenizer": tokenizer, "device": "cpu", "truncation": True, "max_length": 512}
    ape = ApeHFLM(pretrained=tiny.make_model(vocab_size=len(tokenizer)), **given, strategy="sink")
    text = harness.PROMPT.replace("{{context}}", DOCS[0]["context"])
    request = Instance("generate_until", DOCS[0], (text, {"max_gen_toks": 3}), 0, metadata=("small", 0, 1))
    ape.split_requests([request], [3], quiet=True)
    assert "lose all text after their context" in caplog.text
