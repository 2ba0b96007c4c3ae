"""Options of generated tasks: mistakes are told in a sentence."""

from collections.abc import Callable
from typing import Any

import pytest

from lm_eval_ape.errors import ApeError
from lm_eval_ape.tasks.fewshot.data import load_fewshot
from lm_eval_ape.tasks.keyvalue.data import load_keyvalue
from lm_eval_ape.tasks.needle.data import load_needle
from lm_eval_ape.tasks.perplexity.data import load_perplexity


@pytest.mark.parametrize(
    ("load", "options", "sentence"),
    [
        (load_keyvalue, {"keyvalue_pair": 3}, "Unknown metadata 'keyvalue_pair'. Did you mean 'keyvalue_pairs'?"),
        (load_keyvalue, {"keyvalue_pairs": 1}, "keyvalue_pairs must be a whole number of at least 2, but got 1."),
        (
            load_keyvalue,
            {"keyvalue_pairs": "many"},
            "keyvalue_pairs must be a whole number of at least 2, but got 'many'",
        ),
        (
            load_keyvalue,
            {"keyvalue_position": 140},
            "keyvalue_position must be a whole number from 0 to 139, but got 140.",
        ),
        (load_keyvalue, {"keyvalue_part": "train"}, "one of all, calibration, test, but got 'train'"),
        (load_keyvalue, {"keyvalue_rows": 20, "keyvalue_part": "test"}, "keyvalue_rows=20 has 20 rows"),
        (load_needle, {"needle_counts": 3}, "Unknown metadata 'needle_counts'. Did you mean 'needle_count'?"),
        (load_needle, {"needle_depth": 1.5}, "needle_depth must be a number from 0 to 1, but got 1.5."),
        (load_needle, {"needle_depth": True}, "needle_depth must be a number from 0 to 1, but got True."),
        (load_needle, {"needle_count": 20, "needle_distractors": 9}, "are more needles than there are names for: 25"),
        (load_needle, {"needle_haystack": ""}, "needle_haystack must be a path, but got ''."),
        (load_needle, {"needle_haystack": "/no/such"}, "needle_haystack=/no/such is no .txt file and no folder"),
        (
            load_fewshot,
            {"fewshot_dataset": "trek"},
            "There is no dataset 'trek': there are trec, trec_fine, banking77.",
        ),
        (load_fewshot, {"fewshot_dataset": "trec", "fewshot_shots": 3}, "Unknown metadata 'fewshot_shots'."),
        (load_fewshot, {"fewshot_dataset": "trec", "fewshot_name_labels": "yes"}, "must be true or false, but got"),
        (load_fewshot, {"fewshot_dataset": "trec", "fewshot_dir": "/no/such"}, "/no/such/trec does not exist"),
        (load_perplexity, {"perplexity_token": 3}, "Did you mean 'perplexity_tokens'?"),
        (load_perplexity, {"perplexity_tokens": 100}, "perplexity_query_tokens must be a whole number from 1 to 98"),
        (load_perplexity, {"perplexity_path": "x.txt"}, "no tokenizer is named: give model_args with pretrained=NAME"),
        (load_perplexity, {"tokenizer": "/no/tok"}, "The tokenizer of /no/tok cannot be loaded"),
    ],
)
def test_an_impossible_option_is_refused_with_a_sentence(
    load: Callable[..., Any], options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ApeError) as error:
        load(**options)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    "load", [lambda: load_fewshot(fewshot_dataset="banking77"), lambda: load_perplexity(tokenizer="pocket")]
)
def test_without_the_hub_the_sentence_names_the_option_for_local_files(load: Callable[[], Any]) -> None:
    with pytest.raises(
        ApeError, match=r"could not be loaded from the Hugging Face hub .*(fewshot_dir|perplexity_path)"
    ):
        load()
