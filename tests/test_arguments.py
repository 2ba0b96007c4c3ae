"""Which model arguments are known: ours, the harness's, and all that transformers takes by name."""

from __future__ import annotations

import inspect
import re

import pytest
from transformers import PreTrainedModel

from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.arguments import split_arguments


def test_what_transformers_takes_out_of_its_keywords_is_known() -> None:
    taken = re.findall(r'kwargs\.pop\("([a-z]\w*)"', inspect.getsource(PreTrainedModel.from_pretrained))
    assert "device_map" in taken
    # A class of Python's cannot be named in model_args.
    given = dict.fromkeys(set(taken) - {"tqdm_class"})
    _, rest = split_arguments({"pretrained": "pocket", **given})
    assert given.keys() <= rest.keys()


@pytest.mark.parametrize("name", ["cache_dir", "use_safetensors", "load_in_8bit", "bnb_4bit_quant_type", "peft"])
def test_what_signatures_name_is_known(name: str) -> None:
    assert name in split_arguments({"pretrained": "pocket", name: None})[1]


@pytest.mark.parametrize(
    "name", ["self", "kwargs", "model_args", "config", "pretrained_model_name_or_path", "from_auto"]
)
def test_what_cannot_be_given_is_refused(name: str) -> None:
    with pytest.raises(ApeError, match=f"ape-hf has no argument '{name}'"):
        split_arguments({"pretrained": "pocket", name: "x"})
