"""What `--strategies` may say, and that mistakes are told without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from lm_eval_ape.comparison.options import Options
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.specs import describe, read_specs
from lm_eval_ape.settings import option_values as values

SPECS: TypeAdapter[tuple[str, ...]] = TypeAdapter(values.Specs)

MODEL = {"pretrained": "no/such-model", "chunking": "passages"}


def test_commas_in_brackets_belong_to_the_spec() -> None:
    text = "sequential, ape[attn_temperature=0.8,attn_scale=0.9],ape@out/c.json"
    assert SPECS.validate_python(text) == ("sequential", "ape[attn_temperature=0.8,attn_scale=0.9]", "ape@out/c.json")


def test_a_spec_resolves_to_the_strategys_settings_over_the_shared_ones() -> None:
    sink, ape = read_specs(["sink", "ape[attn_temperature=0.8,chunk_tokens=500,shared_prefix=False]"], MODEL)
    assert (sink.settings.attn_temperature, sink.settings.chunking) == (1.0, "passages")
    assert (ape.settings.attn_temperature, ape.settings.attn_scale) == (0.8, 0.9)
    assert (ape.settings.chunk_tokens, ape.settings.shared_prefix, ape.settings.chunking) == (500, False, "passages")
    assert describe(ape.settings.record) == ("T=0.8 S=0.9 shared_prefix=False chunking=passages chunk_tokens=500")


def test_numbers_of_chunks_can_be_swept() -> None:
    specs = SPECS.validate_python("sequential," + ",".join(f"sink[chunks={2**power}]" for power in range(7)))
    found = read_specs(specs, MODEL)
    assert [spec.settings.chunks for spec in found] == [None, 1, 2, 4, 8, 16, 32, 64]
    assert describe(found[-1].settings.record) == "T=1 S=1 chunking=passages chunks=64"


def test_line_breaks_are_described_as_they_are_typed() -> None:
    (spec,) = read_specs([r"sink[chunking=separator,separator=\n]"], MODEL)
    assert describe(spec.settings.record) == r"T=1 S=1 chunking=separator separator=\n"


def test_a_preset_stands_for_the_settings_it_fills() -> None:
    sequential, ape = read_specs(["sequential[preset=C200x20]", "ape[preset=C4000x20,max_chunks=5]"], MODEL)
    assert describe(sequential.settings.record) == "one sequence chunking=passages preset=C200x20"
    assert describe(ape.settings.record) == "T=0.9 S=0.9 chunking=passages max_chunks=5 preset=C4000x20"
    assert ape.settings.chunk_tokens == 4000


@pytest.mark.parametrize(
    ("specs", "model_args", "sentence"),
    [
        ("sequental", {}, "There is no strategy 'sequental'. Did you mean 'sequential'?"),
        ("ape[attn_temprature=0.8]", {}, "there is no setting 'attn_temprature'. Did you mean 'attn_temperature'?"),
        ("ape[attn_temperature=-1]", {}, "attn_temperature must be a positive number, but got -1"),
        ("ape[dtype=float16]", {}, "what loads the model belongs into --model_args"),
        ("ape[0.8]", {}, "settings in brackets are name=value pairs, but got '0.8'"),
        ("ape[attn_scale=0.9", {}, "but got 'ape[attn_scale=0.9'"),
        ("sequential[attn_scale=0.9]", {}, "attn_scale=0.9 would change nothing"),
        ("ape@no/such.json", {}, "The calibration no/such.json cannot be read"),
        ("ape,ape", {}, "strategies names 'ape' twice"),
        ("sink,sink[preset=none]", {}, "'sink' and 'sink[preset=none]', whose settings are the same"),
        (
            "ape[preset=C200x20],ape[chunk_tokens=200,max_chunks=20,retriever=bm25]",
            {},
            "whose settings are the same; drop one.",
        ),
        ("sink[chunks=2]", {"max_chunks": 4}, "sink[chunks=2]: chunks=2 cuts the context into that many chunks"),
        ("ape,ape[attn_scale=0.9]", {}, "'ape' and 'ape[attn_scale=0.9]', whose settings are the same"),
        ("ape", {"attn_scale": 0.9}, "model_args has attn_scale, which all strategies would share"),
        ("ape", {"dtpye": "float16"}, "ape-hf has no argument 'dtpye'"),
    ],
)
def test_a_mistake_is_a_sentence(specs: str, model_args: dict[str, Any], sentence: str, checkpoint: str) -> None:
    with pytest.raises(ApeError) as error:
        read_specs(SPECS.validate_python(specs), {"pretrained": checkpoint, **model_args})
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "There is nothing to compare"),
        ({"model_args": "dtype=float16", "tasks": "t"}, "model_args must name the model"),
        ({"model_args": "pretrained=m"}, "tasks must name at least one task"),
        ({"model_args": "pretrained=m", "tasks": "t"}, "output_path must name a folder"),
        ({"sources": ["runs"], "limit": "5"}, "limit says how to run strategies, but no model is named"),
        ({"sources": ["runs"], "resamples": "5"}, "resamples must be a whole number of at least 99, but got '5'"),
        ({"basline": "a"}, "compare has no option 'basline'. Did you mean 'baseline'?"),
    ],
)
def test_an_impossible_option_is_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ApeError) as error:
        Options.read(given)
    assert sentence in str(error.value)


def test_labels_that_are_no_file_names_get_folders_of_their_own() -> None:
    from lm_eval_ape.comparison.folder import strategy_folder

    labels = ["ape", "ape@a/b.json", "ape@a_b.json", "ape[attn_scale=0.9]"]
    folders = [strategy_folder(Path("out"), label) for label in labels]
    assert len({folder.name for folder in folders}) == 4
    assert folders[0] == Path("out/ape")
    assert all(folder.parent == Path("out") for folder in folders)
