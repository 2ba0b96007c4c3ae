"""`ape-hf`: the harness's Hugging Face model, reading its prompts under any encoding strategy.

Everything that is not about encoding (loading, batching, stop strings, sampling, scoring, caching) is the parent's. The
parent knows prompts by their texts: it is given what they were cut to where it tokenises them, and the chunks that they
read where it calls the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import normalize_gen_kwargs
from torch import Tensor
from torch.nn.functional import pad
from tqdm import tqdm
from transformers import PreTrainedModel

from lm_eval_ape import __version__
from lm_eval_ape.artefacts.identity import check_weights
from lm_eval_ape.attention.segments import Reader
from lm_eval_ape.encoding.encode import Prefixes, input_device
from lm_eval_ape.encoding.kv_store.store import open_store
from lm_eval_ape.encoding.pieces import blocks
from lm_eval_ape.engine import support
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.engine.generating import generating, whole_prompts
from lm_eval_ape.engine.generation_options import check_generation, check_lengths
from lm_eval_ape.engine.non_finite import NotFiniteError, explain, next_tokens_finite
from lm_eval_ape.engine.rolling import rolling_loglikelihood
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.arguments import split_arguments
from lm_eval_ape.harness.prompt_ids import PromptIds
from lm_eval_ape.harness.requests import RequestCutter, source_of
from lm_eval_ape.harness.response_cache import FiniteResponses, guard, identity
from lm_eval_ape.harness.shared_evaluation import share_evaluation
from lm_eval_ape.prompts.chat import ChatFormat
from lm_eval_ape.prompts.prompt import Prompt, Source, Tally
from lm_eval_ape.prompts.request_log import RequestLog
from lm_eval_ape.runtime.out_of_memory import Room
from lm_eval_ape.runtime.processes import Processes, be_quiet_unless_first, join
from lm_eval_ape.settings.option_values import byte_size
from lm_eval_ape.settings.strategy import Settings
from lm_eval_ape.storage.files import make_folder
from lm_eval_ape.storage.loading import loading_told

# Enough for hundreds of long contexts of a large model, and no danger to a disk that holds its weights.
DEFAULT_DIR_BYTES = "50GiB"

Answer = TypeVar("Answer")
Pair = tuple[Any, list[int], list[int]]
"""A prompt and a continuation as the parent hands them on: their texts, and the ids of each."""


@dataclass
class Asked:
    """What our methods must leave for one another, since the parent that calls them knows texts and ids alone.

    Attributes:
        prompts: Those of the requests being answered, by their texts.
        prefixes: Encoded ones that neighbouring requests share.
        batch: The texts that the parent is about to generate from.
        reader: What the rows of the next call of the model read; None for nothing.
        query: How many of their first tokens are the query.
    """

    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    prefixes: Prefixes = field(default_factory=dict)
    batch: list[str] = field(default_factory=list)
    reader: Reader | None = None
    query: int = 0


class ApeHFLM(HFLM):
    """Any RoPE decoder of Hugging Face under sequential, parallel, sink or APE encoding (`--model ape-hf`).

    Args:
        pretrained: Name or path of the model, or a loaded one, as in the harness's `hf`; `pocket` is the one that the
            package ships.
        request_log: File to which one JSON line a request is appended: its task and document, the tokens of its
            prefix, chunks and query, how many tokens were dropped, and with a retriever which chunks it kept.
        kv_cache_bytes: Most bytes of encoded chunks to keep in memory, on the model's own device (`2GiB`); 0 for none.
        kv_cache_dir: Folder in which encoded chunks are kept from run to run; it is made if it does not exist.
        kv_cache_dir_bytes: Most bytes there, 50 GiB by default; None for no limit.
        **arguments: Fields of `strategy.Settings`, and everything that the harness's `hf` accepts.

    Raises:
        ApeError: An argument is unknown or impossible (before anything is loaded), the model is not there, its
            tokenizer cannot tell which characters its tokens cover, or it cannot encode in parallel.
    """

    def __init__(
        self,
        pretrained: str | PreTrainedModel | None = None,
        *,
        request_log: str | None = None,
        kv_cache_bytes: int | str = 0,
        kv_cache_dir: str | None = None,
        kv_cache_dir_bytes: int | str | None = DEFAULT_DIR_BYTES,
        **arguments: Any,
    ) -> None:
        settings, rest = split_arguments({"pretrained": pretrained, **arguments})
        log = RequestLog(request_log)
        memory_bytes = byte_size("kv_cache_bytes", kv_cache_bytes)
        folder_bytes = None if kv_cache_dir_bytes is None else byte_size("kv_cache_dir_bytes", kv_cache_dir_bytes)
        folder = make_folder(kv_cache_dir) if kv_cache_dir else None
        self._asked = Asked()
        self._room = Room(rows="requests", relieve=self._let_chunks_go)
        if not torch.cuda.is_available() and str(rest.get("device", "cuda")).startswith("cuda"):
            # lm_eval's command line says cuda:0 where nothing was asked for.
            rest["device"] = "cpu"
        self.processes = Processes()
        if isinstance(pretrained, str) and rest.get("tp_plan") is None:
            be_quiet_unless_first()
            # Before the weights are read, so that the others learn of it if that fails here.
            self.processes = join()
        with loading_told(pretrained):
            super().__init__(**rest)
        if self.processes.count > 1:
            # The parent counts processes of several GPUs only, and those of each machine from 0.
            self._rank, self._world_size = self.processes.rank, self.processes.count
            share_evaluation()
        self.cache_hook: CacheHook = FiniteResponses(CacheHook(None), self.model.dtype)
        support.check(self.model, settings)
        if path := arguments.get("calibration"):
            check_weights(path, self.model)
        store = open_store(
            self.model,
            input_device(self.model),
            memory_bytes=memory_bytes,
            folder=folder,
            folder_bytes=folder_bytes,
            facts=str(self.mixed_precision_dtype),
        )
        self.engine = Engine(self.model, settings, store, autocast_dtype=self.mixed_precision_dtype)
        ids = PromptIds(self.tokenizer, self.add_bos_token, self.prefix_token_id, self.truncation)
        chat = ChatFormat(super().apply_chat_template, self._close_chat)
        self.cutter = RequestCutter(ids, chat, log, first=self.rank == 0)

    @property
    def settings(self) -> Settings:
        """How prompts are encoded and read."""
        return self.engine.settings

    @contextmanager
    def _with(self, engine: Engine) -> Iterator[None]:
        before, self.engine = self.engine, engine
        self._asked.prefixes = {}
        try:
            yield
        finally:
            self.engine = before
            self._asked.prefixes = {}

    def under(self, settings: Settings) -> AbstractContextManager[None]:
        """Encode and read under other settings while the context lasts."""
        return self._with(self.engine.under(settings))

    def encoding_anew(self) -> AbstractContextManager[None]:
        """Read nothing that was encoded before, and leave the store alone, while the context lasts."""
        return self._with(self.engine.anew())

    # Loading and provenance

    def _create_tokenizer(self, *args: Any, **kwargs: Any) -> None:
        super()._create_tokenizer(*args, **kwargs)
        if not self.tokenizer.is_fast:
            raise ApeError(
                f"{type(self.tokenizer).__name__} cannot tell which characters its tokens cover, so prompts cannot be "
                "cut at the borders of their context; use a fast tokenizer (use_fast_tokenizer=True, or another one "
                "with tokenizer=...)."
            )

    def get_model_info(self) -> dict[str, Any]:
        """What made a number, for the results file: the parent's facts, the settings, and the kernels that ran."""
        encoding = {"version": __version__, **self.settings.record, "attn_backends_used": sorted(self.engine.used)}
        found = {"contexts": self.cutter.contexts} if self.cutter.contexts else {}
        kept = {"kv_cache": self.engine.store.record()} if self.engine.store else {}
        return {**super().get_model_info(), "lm_eval_ape": {**encoding, **found, **kept}}

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Take the harness's response cache, refusing one that another model or other settings filled."""
        if (responses := getattr(cache_hook, "dbdict", None)) is not None:
            guard(responses, identity(self))
        super().set_cache_hook(FiniteResponses(cache_hook, self.model.dtype))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Put messages into the chat template, as the parent does; the text knows where each of them stands."""
        return self.cutter.chat.text(chat_history, add_generation_prompt)

    def _close_chat(self, history: list[dict[str, str]]) -> str:
        """Messages in the chat template, with nothing after the last one's end."""
        return str(self.tokenizer.apply_chat_template(history, tokenize=False, **self.chat_template_args))

    # Requests

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Answer the requests, each context encoded by the strategy."""

        def reserve(request: Instance) -> int:
            return int(normalize_gen_kwargs(request.args[1], self.max_gen_toks)["max_gen_toks"])

        check_generation(requests, self.model.generation_config, parallel=self.settings.parallel)
        prompts = self.split_requests(requests, [reserve(request) for request in requests], disable_tqdm)
        check_lengths(requests, prompts)
        return self._answer(requests, prompts, partial(super().generate_until, disable_tqdm=disable_tqdm))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Score continuations; the contexts of requests that share one are encoded once."""
        # One more than the tokens, which may split otherwise where prompt and continuation meet.
        reserves = [len(self.tok_encode(request.args[1], add_special_tokens=False)) + 1 for request in requests]
        longest: dict[str, int] = {}
        for request, tokens in zip(requests, reserves, strict=True):
            longest[request.args[0]] = max(tokens, longest.get(request.args[0], 0))
        prompts = self.split_requests(requests, [longest[request.args[0]] for request in requests], disable_tqdm)
        return self._answer(requests, prompts, partial(super().loglikelihood, disable_tqdm=disable_tqdm))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Score whole texts (see `rolling.rolling_loglikelihood`); those without a context, as the parent does.

        Raises:
            ApeError: A retriever is set, which would leave a part of each text without a score.
        """
        if self.settings.retrieves and requests:
            raise ApeError(
                f"Task {requests[0].task_name} scores whole texts (loglikelihood_rolling), of which retriever="
                f"{self.settings.retriever} would drop parts; drop the retriever, or the task."
            )
        whole = partial(super().loglikelihood_rolling, disable_tqdm=disable_tqdm)
        if not self.settings.parallel:
            return self._answer(requests, {}, whole)
        prompts = self.split_requests(requests, [1] * len(requests), disable_tqdm)

        def score(requests: list[Instance]) -> list[float]:
            plain = [request for request in requests if not prompts[request.args[0]].chunks]
            scores = dict(zip(map(id, plain), whole(plain) if plain else [], strict=True))
            quiet = disable_tqdm or self.rank != 0
            for request in tqdm(requests, desc="Running loglikelihood_rolling requests", disable=quiet):
                if id(request) not in scores:
                    prompt = prompts[request.args[0]]
                    with self.engine.autocast():
                        found = rolling_loglikelihood(self.engine.anew(), prompt, self.prefix_token_id)
                    scores[id(request)] = found
                    self.cache_hook.add_partial("loglikelihood_rolling", request.args, found)
            return [scores[id(request)] for request in requests]

        return self._answer(requests, {}, score)

    def _answer(
        self, requests: list[Instance], prompts: Mapping[str, Prompt], work: Callable[[list[Instance]], list[Answer]]
    ) -> list[Answer]:
        """Answer requests that the parent asks for by their texts.

        Raises:
            NotFiniteError: Numbers are not finite; it names the document and the layer.
        """
        self._asked = Asked(prompts)
        try:
            return work(requests)
        except NotFiniteError as error:
            broken = next((request for request in requests if request.args[0] == error.request), None)
            if broken is None:
                raise
            told = explain(self, error, lambda: work([broken]))
            raise NotFiniteError(f"{source_of(broken)}: {told.what}", told.dtype, told.place) from None
        finally:
            self._asked = Asked()

    def split_requests(self, requests: Sequence[Instance], reserves: Sequence[int], quiet: bool) -> dict[str, Prompt]:
        """Cut all requests before the first is answered (see `RequestCutter.cut`)."""
        window = support.window(self.config.get_text_config(), self.max_length, self.settings)
        return self.cutter.cut(requests, reserves, self.settings, window, quiet=quiet, noted=self.note)

    def note(self, source: Source, request: Instance, prompt: Prompt) -> None:
        """Take note of how a request was cut; for subclasses."""

    @contextmanager
    def answering_share(self) -> Iterator[list[Tally]]:
        """While the context lasts, requests are a share of what other processes answer too (see `SharedLM`).

        The parent then waits for nobody, and what is out of the ordinary is collected instead of warned of.
        """
        self._world_size = 1
        try:
            with self.cutter.sharing() as tallies:
                yield tallies
        finally:
            self._world_size = self.processes.count

    # Where the parent calls the model

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Give the parent prompts to generate from as they were cut; `_model_generate` reads their chunks apart."""
        if not all(string in self._asked.prompts for string in strings):
            return super().tok_batch_encode(strings, padding_side, left_truncate_len, truncation)
        self._asked.batch = list(strings)
        return whole_prompts([self._asked.prompts[string] for string in strings], self.tokenizer.pad_token_id)

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **options: Any) -> Tensor:
        texts, self._asked.batch = self._asked.batch, []
        batch = [self._asked.prompts[text] for text in texts]
        parent = super()._model_generate
        if not any(prompt.chunks for prompt in batch):
            with next_tokens_finite(self.model, texts):
                return parent(context, max_length, stop, **options)
        mask = options.pop("attention_mask")

        def generate(rows: slice) -> Tensor:
            readers = self._encode(batch[rows])
            reading = generating(self.engine, batch[rows], readers, mask[rows])
            with next_tokens_finite(self.model, texts[rows]), reading as arguments:
                return parent(context[rows], max_length, stop, **arguments, **options)

        pieces = self._room.pieces(generate, len(batch))
        # Pieces of a batch may end after different numbers of tokens.
        width = max(piece.shape[1] for piece in pieces)
        padding = self.tokenizer.pad_token_id
        return torch.cat([pad(piece, (0, width - piece.shape[1]), value=padding) for piece in pieces])

    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        prompts = [self._asked.prompts.get(strings[0]) if strings else None for strings, _, _ in requests]
        known = [prompt for prompt in prompts if prompt is not None]
        if len(known) < len(prompts):
            # Windows of a rolling text that has no context.
            return super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)
        # An empty prompt has no tokens of its own: the parent has put its prefix token there.
        pairs = zip(known, requests, strict=True)
        queries = [(strings, list(prompt.query) or before, after) for prompt, (strings, before, after) in pairs]
        if not any(prompt.chunks for prompt in known):
            return super()._loglikelihood_tokens(queries, disable_tqdm=disable_tqdm, override_bs=override_bs)
        groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        selection = self.settings.selection
        for index, prompt in enumerate(known):
            # Where a query's tokens choose chunks together, a batch has one query, whose length is that of a pass.
            alone = prompt.query if selection and selection.whole_pass else ()
            groups[prompt.prefix, prompt.chunks, alone].append(index)
        answers: dict[int, tuple[float, bool]] = {}
        quiet = disable_tqdm or self.rank != 0
        with tqdm(total=len(requests), desc="Running loglikelihood requests", disable=quiet) as progress:
            for indices, prompt, reader in self._encoded(list(groups.values()), known):
                self._asked.reader, self._asked.query = reader, len(prompt.query)
                try:
                    scored = self._scored([queries[index] for index in indices])
                finally:
                    self._asked.reader = None
                answers.update(zip(indices, scored, strict=True))
                progress.update(len(indices))
        return [answers[index] for index in range(len(requests))]

    def _scored(self, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
        """Score continuations of one context, as many at a time as memory allows."""
        parent, rows = super()._loglikelihood_tokens, min(len(pairs), self.max_batch_size or len(pairs))

        def score(part: slice) -> list[tuple[float, bool]]:
            size = min(rows, self._room.most or rows)
            found: list[tuple[float, bool]] = parent(pairs[part], disable_tqdm=True, override_bs=size)
            return found

        return [answer for part in self._room.pieces(score, len(pairs)) for answer in part]

    def _encoded(
        self, groups: Sequence[list[int]], prompts: Sequence[Prompt]
    ) -> Iterator[tuple[list[int], Prompt, Reader]]:
        """Groups of requests that share a context, with what they read; short contexts are encoded together."""
        firsts = [prompts[indices[0]] for indices in groups]
        for block in blocks([len(prompt.ids) for prompt in firsts]):
            yield from zip(groups[block], firsts[block], self._encode(firsts[block]), strict=True)

    def _encode(self, prompts: Sequence[Prompt]) -> list[Reader]:
        """Encode prefixes and chunks; a prefix that the prompts before had too is there still."""
        return self.engine.encode_all(prompts, self._asked.prefixes)

    def _model_call(self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        reader = self._asked.reader
        if reader is None or not reader.segments:
            return super()._model_call(inps, attn_mask, labels)
        with torch.no_grad(), self.engine.tail(reader, rows=inps.shape[0]) as tail:
            return tail.read(inps, keep=inps.shape[1], query=self._asked.query)

    def _let_chunks_go(self) -> str | None:
        """Make room by forgetting chunks, which can be encoded again."""
        kept = self.engine.store is not None and self.engine.store.clear_memory()
        return "the chunks kept in memory are let go" if kept else None
