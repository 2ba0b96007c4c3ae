"""Keeps the harness's response cache from answering for other settings than it was filled with.

The harness finds a cached response by the prompt alone, so answers of one (T, S) would be served for another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, MutableMapping
from typing import Any

from lm_eval_ape.errors import ApeError

# Response keys are SHA-256 digests, so this one can never be one of them.
STAMP = "lm_eval_ape"


def guard(responses: MutableMapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Stamp an empty cache with what its responses will depend on, and refuse one with another stamp.

    Args:
        responses: The harness's open cache, from key to response.
        identity: Model and settings, of JSON types.

    Raises:
        ApeError: The cache was filled by another model or with other settings.
    """
    own = json.loads(json.dumps(identity, default=str))
    if STAMP not in responses:
        if len(responses):
            raise ApeError(
                "The file given to --use_cache was filled by another model than ape-hf, and its responses cannot be "
                "told apart from this run's; give another path."
            )
        responses[STAMP] = own
        return
    stamp = responses[STAMP]
    if stamp != own:
        names = sorted(key for key in own.keys() | stamp.keys() if own.get(key) != stamp.get(key))
        changes = ", ".join(f"{name}: {stamp.get(name)!r} there, {own.get(name)!r} here" for name in names)
        raise ApeError(
            f"The file given to --use_cache holds responses of other settings ({changes}); "
            "give each setting a path of its own."
        )
