"""The harness's requests become prompts, all before the first is answered, and what is out of the ordinary is said."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from lm_eval.api.instance import Instance
from tqdm import tqdm

from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.prompt_ids import PromptIds
from lm_eval_ape.prompts.chat import ChatFormat, messages_of
from lm_eval_ape.prompts.prompt import Prompt, Source, Tokenise
from lm_eval_ape.prompts.request_log import RequestLog
from lm_eval_ape.prompts.splitter import Splitter
from lm_eval_ape.prompts.tally import Tally, warn_of
from lm_eval_ape.settings.strategy import Settings

logger = logging.getLogger(__name__)

Noted = Callable[[Source, Instance, Prompt], None]
"""Gets every request and how it was cut."""


def source_of(request: Instance) -> Source:
    """Where a request comes from."""
    return Source(str(request.task_name), int(request.doc_id or 0), request.doc)


class RequestCutter:
    """Cuts requests into prompts.

    Args:
        ids: Makes token ids.
        chat: The model's chat template.
        log: Where each request is noted.
        first: Whether this is the first of several processes, which speaks for all.

    Attributes:
        contexts: By task, what its prompts' contexts were found to be.
    """

    def __init__(self, ids: PromptIds, chat: ChatFormat, log: RequestLog, *, first: bool) -> None:
        self.ids = ids
        self.chat = chat
        self.log = log
        self.first = first
        self.contexts: dict[str, list[str]] = {}
        # Of a share of requests, until the others' are there; None where nothing is shared.
        self._shared: list[Tally] | None = None

    def cut(
        self,
        requests: Sequence[Instance],
        reserves: Sequence[int],
        settings: Settings,
        window: int,
        *,
        quiet: bool,
        noted: Noted = lambda source, request, prompt: None,
    ) -> dict[str, Prompt]:
        """Cut all requests, so that a bad one costs no work.

        Args:
            requests: The requests.
            reserves: Of each, how many tokens must still fit into the window after its prompt.
            settings: How prompts are cut.
            window: Positions that one request may use.
            quiet: Whether to show no progress.
            noted: Gets every request and how it was cut.

        Returns:
            The prompts by the requests' texts.

        Raises:
            ApeError: A request cannot be cut, or two have the same text and become different prompts.
        """
        ways: tuple[Tokenise, ...] = (self.ids.generated, self.ids.scored)
        splitters = {tokenise: Splitter(tokenise, settings, window) for tokenise in ways}
        prompts: dict[str, Prompt] = {}
        pairs = zip(requests, reserves, strict=True)
        for request, reserve in tqdm(pairs, "Splitting prompts", len(requests), disable=quiet or not self.first):
            text, source = request.args[0], source_of(request)
            splitter = splitters[self.ids.of(request)]
            if settings.chunking == "separator" and not messages_of(text) and self.chat.wrote(text):
                splitter.note_template()
            # The harness moves spaces at a prompt's end to the continuation that it scores.
            cut = text.rstrip() if request.request_type in ("loglikelihood", "multiple_choice") else text
            prompt = splitter.split(cut, source, reserve)
            if prompts.setdefault(text, prompt) != prompt:
                raise ApeError(
                    f"{source}: another request has the same prompt but another context or length to generate, and the "
                    "harness cannot tell them apart; run the two in separate tasks."
                )
            # What is no share, every process cuts.
            self.log.append(source, request.idx, prompt, written=self._shared is not None or self.first)
            noted(source, request, prompt)
        tallies = [splitter.tally() for splitter in splitters.values()]
        if self._shared is None:
            self.report(tallies, settings)
        else:
            self._shared += tallies
        return prompts

    def report(self, tallies: Sequence[Tally], settings: Settings) -> None:
        """Say what contexts are, and warn of what was out of the ordinary; the first process does it for all."""
        for task, where in dict.fromkeys(place for tally in tallies for place in tally.places):
            if where not in self.contexts.setdefault(task, []):
                self.contexts[task].append(where)
                if self.first:
                    logger.info("The context of %s's prompts: %s.", task, where)
        if self.first:
            warn_of(tallies, settings)

    @contextmanager
    def sharing(self) -> Iterator[list[Tally]]:
        """Collect what is out of the ordinary instead of saying it, while the context lasts."""
        self._shared = []
        try:
            yield self._shared
        finally:
            self._shared = None
