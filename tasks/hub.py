"""Rows of a dataset on the Hugging Face hub, with a sentence where they cannot be had."""

from datasets import Dataset, load_dataset

from lm_eval_ape.errors import ApeError


def hub_rows(name: str, split: str, *, instead: str) -> Dataset:
    """Load one split of a dataset.

    Args:
        name: The dataset's name on the hub.
        split: The split.
        instead: What to do on a machine without internet, as the end of the error's sentence.

    Raises:
        ApeError: It is not in the cache and cannot be loaded.
    """
    try:
        return load_dataset(name, split=split)
    except (OSError, ValueError) as error:  # every error of the hub, of the network and of `datasets` is one
        raise ApeError(
            f"The split {split} of {name} is not in the cache and could not be loaded from the Hugging Face hub "
            f"({error}). On a machine without internet {instead}"
        ) from error
