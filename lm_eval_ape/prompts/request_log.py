"""A file that says of each request how its prompt was cut."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval_ape.errors import ApeError
from lm_eval_ape.prompts.prompt import Prompt, Source

logger = logging.getLogger(__name__)


class RequestLog:
    """JSON lines, one a request, appended to a file.

    Args:
        path: The file; None for none.

    Raises:
        ApeError: Its folder does not exist.
    """

    def __init__(self, path: str | None) -> None:
        self.path = Path(path).expanduser() if path else None
        if self.path and not self.path.parent.is_dir():
            raise ApeError(f"request_log={path} lies in a folder that does not exist; make it first.")

    def append(self, source: Source, number: int, prompt: Prompt, *, written: bool) -> None:
        """Add a request.

        Args:
            source: The document that it is of.
            number: Its number among the document's requests.
            prompt: How it was cut.
            written: Whether it is written to the file, if there is one, or goes to the logger alone.
        """
        record = {
            "task": source.task,
            "doc_id": source.doc_id,
            "idx": number,
            "prefix_tokens": len(prompt.prefix),
            "chunk_tokens": [len(chunk) for chunk in prompt.chunks],
            "query_tokens": len(prompt.query),
            "dropped_tokens": prompt.dropped,
        }
        if prompt.retrieval:
            record |= {"kept_chunks": list(prompt.retrieval.kept), "chunks": prompt.retrieval.chunks}
        self._write(record, written=written)

    def append_recomputed(self, source: Source, number: int, tokens: Sequence[int]) -> None:
        """Add how many tokens of each of a request's chunks were recomputed, by the process that did it."""
        where = {"task": source.task, "doc_id": source.doc_id, "idx": number}
        self._write({**where, "recomputed_tokens": list(tokens)}, written=True)

    def _write(self, record: Mapping[str, Any], *, written: bool) -> None:
        logger.debug("request %s", record)
        if self.path and written:
            # At once, so that lines of several processes do not mix.
            with self.path.open("ab", buffering=0) as file:
                file.write(json.dumps(record).encode() + b"\n")
