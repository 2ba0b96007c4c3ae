"""Options of `generate`: one chunk answers as `hf`, several as a slow reference, or the option is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import GenerationConfig, LogitsProcessorList, WatermarkingConfig
from transformers.generation import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from helpers import dense, tiny
from lm_eval_ape.engine.generation_options import _NEVER, _WHOLE
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.ape_hf import ApeHFLM

TOKENIZER = tiny.make_tokenizer()
WORDS = "river city film people passage question born words given "
TOKENS = 8


def document(number: int) -> dict[str, str]:
    """Documents whose contexts and questions differ in length."""
    return {"context": WORDS * 3 + "city " * number, "question": "who " + "is " * number}


def requests(count: int = 3, **options: Any) -> list[Instance]:
    made = []
    for number in range(count):
        doc = document(number)
        text = f"Answer the question.\n\n{doc['context']}\n\nQuestion: {doc['question']}?\nAnswer:"
        given = {"until": [], "max_gen_toks": TOKENS, **options}
        made.append(Instance("generate_until", doc, (text, given), 0, metadata=("small", number, 1)))
    return made


def pair(family: str = "llama", **arguments: Any) -> tuple[HFLM, ApeHFLM]:
    """The harness's model and ours, on one model, in batches of three."""
    model = tiny.make_model(family, vocab_size=len(TOKENIZER))
    given = {"tokenizer": TOKENIZER, "device": "cpu", "batch_size": 3}
    return HFLM(pretrained=model, **given), ApeHFLM(pretrained=model, **given, **arguments)


def answers(lm: HFLM, **options: Any) -> list[str]:
    torch.manual_seed(0)
    return lm.generate_until(requests(**options), disable_tqdm=True)


SAMPLED = {"do_sample": True, "temperature": 1.5}
BEAMS = {"num_beams": 3}
WATERMARK = WatermarkingConfig(bias=5.0, seeding_scheme="lefthash", context_width=1)
# A value of each option with what it needs beside it.
OPTIONS: dict[str, dict[str, Any]] = {
    "assistant_confidence_threshold": {"assistant_confidence_threshold": 0.5},
    "bad_words_ids": {"bad_words_ids": [[5], [7, 9]]},
    "begin_suppress_tokens": {"begin_suppress_tokens": [33, 44]},
    "bos_token_id": {"bos_token_id": 7},
    "decoder_start_token_id": {"decoder_start_token_id": 5},
    "disable_compile": {"disable_compile": True},
    "do_sample": SAMPLED,
    "early_stopping": {"early_stopping": True, **BEAMS},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 2},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 1.5},
    "eos_token_id": {"eos_token_id": [2, 77]},
    "epsilon_cutoff": {"epsilon_cutoff": 3e-4, **SAMPLED},
    "eta_cutoff": {"eta_cutoff": 3e-4, **SAMPLED},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": (3, 1.5)},
    "forced_bos_token_id": {"forced_bos_token_id": 9},
    "forced_eos_token_id": {"forced_eos_token_id": 9},
    "length_penalty": {"length_penalty": 0.5, **BEAMS},
    "max_length": {"max_length": 80},
    "max_new_tokens": {"max_new_tokens": 4},
    "max_time": {"max_time": 1e6},
    "min_length": {"min_length": 200},
    "min_new_tokens": {"min_new_tokens": 6},
    "min_p": {"min_p": 0.01, **SAMPLED},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "num_beams": BEAMS,
    "output_attentions": {"output_attentions": True},
    "output_hidden_states": {"output_hidden_states": True},
    "output_logits": {"output_logits": True},
    "output_scores": {"output_scores": True},
    "remove_invalid_values": {"remove_invalid_values": True},
    "renormalize_logits": {"renormalize_logits": True},
    "repetition_penalty": {"repetition_penalty": 1.5},
    "sequence_bias": {"sequence_bias": [[[5], 3.0], [[100, 7], 4.0]]},
    "suppress_tokens": {"suppress_tokens": [5, 100]},
    "temperature": SAMPLED,
    "top_h": {"top_h": 0.5, **SAMPLED},
    "top_k": {"top_k": 5, **SAMPLED},
    "top_p": {"top_p": 0.9, **SAMPLED},
    "typical_p": {"typical_p": 0.9, **SAMPLED},
    "watermarking_config": {"watermarking_config": WATERMARK},
}
# Of models that assist, of compilation and of encoders: nothing that a prompt's answer depends on.
IDLE = {
    "assistant_ensemble_weight",
    "assistant_lookbehind",
    "compile_config",
    "is_assistant",
    "max_matching_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "target_lookbehind",
    "transformers_version",
}
THERE = {name for name in vars(GenerationConfig()) if not name.startswith("_")}


@pytest.fixture(scope="module", name="models")
def loaded_pair() -> tuple[HFLM, ApeHFLM]:
    return pair(strategy="parallel", chunks=1)


@pytest.mark.parametrize("name", sorted(THERE & set(OPTIONS)))
def test_one_chunk_answers_as_hf_with_every_option(models: tuple[HFLM, ApeHFLM], name: str) -> None:
    hf, ape = models
    assert answers(ape, **OPTIONS[name]) == answers(hf, **OPTIONS[name])


def test_every_option_that_there_is_is_tried_or_refused() -> None:
    assert set(OPTIONS) | IDLE | set(_NEVER) | set(_WHOLE) >= THERE


def test_the_options_that_look_at_the_prompt_change_answers_here(models: tuple[HFLM, ApeHFLM]) -> None:
    _, ape = models
    plain = answers(ape)
    for name in ("repetition_penalty", "no_repeat_ngram_size", "encoder_repetition_penalty", "watermarking_config"):
        assert answers(ape, **OPTIONS[name]) != plain


@pytest.mark.parametrize("family", ["llama3", "mistral", "gemma3", "phi3", "gpt_neox", "gpt_oss"])
def test_other_families_see_whole_prompts_too(family: str) -> None:
    hf, ape = pair(family, strategy="parallel", chunks=1)
    for name in ("repetition_penalty", "no_repeat_ngram_size"):
        assert answers(ape, **OPTIONS[name]) == answers(hf, **OPTIONS[name])


@pytest.mark.parametrize("strategy", ["sequential", "parallel", "sink"])
def test_options_of_the_checkpoint_count_too(strategy: str) -> None:
    hf, ape = pair(strategy=strategy, **({} if strategy == "sequential" else {"chunks": 1}))
    plain = answers(hf)
    hf.model.generation_config.repetition_penalty = 1.3
    ape.model.generation_config.repetition_penalty = 1.3
    assert answers(ape) == answers(hf) != plain


@pytest.mark.parametrize("options", [{"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}], ids=str)
@pytest.mark.parametrize("strategy", ["parallel", "sink", "ape"])
def test_several_chunks_answer_as_a_slow_reference(strategy: str, options: dict[str, Any]) -> None:
    """Greedy decoding over dense attention, the processors given every token of the prompt and the answer."""
    _, ape = pair(strategy=strategy, chunks=3)
    given = requests()
    prompts = ape.split_requests(given, [TOKENS] * len(given), quiet=True)
    if "repetition_penalty" in options:
        rule: Any = RepetitionPenaltyLogitsProcessor(options["repetition_penalty"])
    else:
        rule = NoRepeatNGramLogitsProcessor(options["no_repeat_ngram_size"])
    expected = []
    for request in given:
        prompt = prompts[request.args[0]]
        query, said = list(prompt.query), []
        for _ in range(TOKENS):
            layout = dense.lay_out(
                list(prompt.prefix),
                [list(chunk) for chunk in prompt.chunks],
                [*query, *said],
                "shared",
                ape.settings.shared_prefix,
            )
            logits = dense.dense_logits(
                ape.model,
                layout,
                temperature=ape.settings.attn_temperature,
                scale=ape.settings.attn_scale,
            )[0, -1:]
            ids = torch.tensor([[*prompt.ids, *said]])
            said.append(int(LogitsProcessorList([rule])(ids, logits).argmax()))
            if said[-1] == TOKENIZER.eos_token_id:
                break
        expected.append(TOKENIZER.decode(said, skip_special_tokens=True))
    assert answers(ape, **options) == expected


@pytest.mark.parametrize("name", sorted(set(_WHOLE) & {*THERE, "custom_generate"}))
def test_an_option_that_needs_one_sequence_is_refused_by_its_name(models: tuple[HFLM, ApeHFLM], name: str) -> None:
    with pytest.raises(ApeError, match=f"Task small generates with {name}=7, but (it|the) "):
        answers(models[1], **{name: 7})


@pytest.mark.parametrize("strategy", ["sequential", "sink"])
@pytest.mark.parametrize("name", sorted(_NEVER))
def test_what_the_harness_sets_is_refused_under_every_strategy(strategy: str, name: str) -> None:
    _, ape = pair(strategy=strategy)
    with pytest.raises(ApeError, match=f"Task small generates with {name}=7, but the harness"):
        answers(ape, **{name: 7})


def test_options_that_are_off_are_no_options(models: tuple[HFLM, ApeHFLM]) -> None:
    assert answers(models[1], cache_implementation=None, num_return_sequences=1) == answers(models[1])


def test_an_unknown_option_is_refused_with_the_nearest_one(models: tuple[HFLM, ApeHFLM]) -> None:
    with pytest.raises(ApeError, match=r"'repetition_penalti', which is no option .* mean 'repetition_penalty'\?"):
        answers(models[1], repetition_penalti=1.5)


def test_a_checkpoint_that_wants_what_needs_one_sequence_is_refused() -> None:
    _, ape = pair(strategy="sink")
    ape.model.generation_config.guidance_scale = 2.0
    with pytest.raises(ApeError, match=r"generation_config\.json has guidance_scale=2\.0, but it reads"):
        answers(ape)
    ape.model.generation_config.guidance_scale = None
    ape.model.generation_config.cache_implementation = "static"
    assert answers(ape)


def test_a_prompt_longer_than_the_window_is_not_warned_about(capfd: pytest.CaptureFixture[str]) -> None:
    model = tiny.make_model(vocab_size=len(TOKENIZER))
    model.config.max_position_embeddings = 50
    ape = ApeHFLM(pretrained=model, tokenizer=TOKENIZER, device="cpu", strategy="sink", chunk_tokens=10, max_length=50)
    given = requests(1, max_gen_toks=3)
    assert len(ape.cutter.ids.generated(given[0].args[0])[0]) > 50
    ape.generate_until(given, disable_tqdm=True)
    assert "maximum length" not in capfd.readouterr().err


def test_a_length_that_the_prompt_has_used_up_is_told_before_anything_runs(models: tuple[HFLM, ApeHFLM]) -> None:
    with pytest.raises(ApeError, match="document 0 of task small: max_length=40 leaves nothing to generate after"):
        answers(models[1], max_length=40)
