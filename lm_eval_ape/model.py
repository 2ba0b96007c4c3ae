"""`ape-hf`: the harness's Hugging Face model, reading its prompts under any encoding strategy.

Everything that is not about encoding (loading, batching, stop strings, sampling, scoring, caching) is the parent's.
The parent sees queries where it expects prompts; the segments that they read are put in where it calls the model.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import has_bos_prefix, normalize_gen_kwargs
from torch import Tensor
from torch.nn.functional import pad
from tqdm import tqdm
from transformers import PreTrainedModel

from lm_eval_ape import __version__, support
from lm_eval_ape.arguments import split_arguments
from lm_eval_ape.cache_guard import FiniteResponses, guard, identity
from lm_eval_ape.chat import ChatFormat, messages_of
from lm_eval_ape.encode import Prefixes, encode_all, input_device
from lm_eval_ape.errors import ApeError
from lm_eval_ape.factors import reading_factors
from lm_eval_ape.files import make_folder
from lm_eval_ape.finite import NotFiniteError, explain, next_tokens_finite
from lm_eval_ape.generation import check_generation, check_lengths, lengths_unwarned
from lm_eval_ape.kv_store import KVStore, open_store
from lm_eval_ape.loading import loading_told
from lm_eval_ape.option_values import byte_size
from lm_eval_ape.passes import passes
from lm_eval_ape.pieces import blocks
from lm_eval_ape.processes import Processes, be_quiet_unless_first, join
from lm_eval_ape.prompt import Prompt, Source, Splitter, Tally, Tokenise, Tokens, warn_of
from lm_eval_ape.request_log import RequestLog
from lm_eval_ape.rolling import rolling_loglikelihood
from lm_eval_ape.segmented_attention import reading_segments
from lm_eval_ape.segments import Reader, Reading, SegmentedCache, together
from lm_eval_ape.shared_evaluation import share_evaluation
from lm_eval_ape.short_memory import half, in_pieces
from lm_eval_ape.strategy import Settings

logger = logging.getLogger(__name__)

# Enough for hundreds of long contexts of a large model, and no danger to a disk that holds its weights.
DEFAULT_DIR_BYTES = "50GiB"

Answer = TypeVar("Answer")


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
        self.settings, rest = split_arguments({"pretrained": pretrained, **arguments})
        self.request_log = RequestLog(request_log)
        memory_bytes = byte_size("kv_cache_bytes", kv_cache_bytes)
        folder_bytes = None if kv_cache_dir_bytes is None else byte_size("kv_cache_dir_bytes", kv_cache_dir_bytes)
        folder = make_folder(kv_cache_dir) if kv_cache_dir else None
        self.store: KVStore | None = None
        self.used: Counter[str] = Counter()
        self.contexts: dict[str, list[str]] = {}
        self._prompts: dict[str, Prompt] = {}
        self._prefixes: Prefixes = {}
        self._batch: list[str] = []
        self._reader: Reader | None = None
        self._query_tokens = 0
        self._tallies: list[Tally] | None = None
        # Set once memory has been too short for more rows.
        self._most_rows: int | None = None
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
        self._chat = ChatFormat(super().apply_chat_template, self._close_chat)
        if self.processes.count > 1:
            # The parent counts processes of several GPUs only, and those of each machine from 0.
            self._rank, self._world_size = self.processes.rank, self.processes.count
            share_evaluation()
        self.cache_hook: CacheHook = FiniteResponses(CacheHook(None), self.model.dtype)
        support.check(self.model, self.settings)
        if path := arguments.get("calibration"):
            from lm_eval_ape.calibration.identity import check_weights

            check_weights(path, self.model)
        self.store = open_store(
            self.model,
            input_device(self.model),
            memory_bytes=memory_bytes,
            folder=folder,
            folder_bytes=folder_bytes,
            facts=str(self.mixed_precision_dtype),
        )

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
        encoding = {"version": __version__, **self.settings.record, "attn_backends_used": sorted(self.used)}
        found = {"contexts": self.contexts} if self.contexts else {}
        kept = {"kv_cache": self.store.record()} if self.store else {}
        return {**super().get_model_info(), "lm_eval_ape": {**encoding, **found, **kept}}

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Take the harness's response cache, refusing one that another model or other settings filled."""
        if (responses := getattr(cache_hook, "dbdict", None)) is not None:
            guard(responses, identity(self))
        super().set_cache_hook(FiniteResponses(cache_hook, self.model.dtype))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Put messages into the chat template, as the parent does; the text knows where each of them stands."""
        return self._chat.text(chat_history, add_generation_prompt)

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
        with self._asked(prompts):
            return self._finite(requests, partial(super().generate_until, disable_tqdm=disable_tqdm))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Score continuations; the contexts of requests that share one are encoded once."""
        # One more than the tokens, which may split otherwise where prompt and continuation meet.
        reserves = [len(self.tok_encode(request.args[1], add_special_tokens=False)) + 1 for request in requests]
        longest: dict[str, int] = {}
        for request, tokens in zip(requests, reserves, strict=True):
            longest[request.args[0]] = max(tokens, longest.get(request.args[0], 0))
        prompts = self.split_requests(requests, [longest[request.args[0]] for request in requests], disable_tqdm)
        with self._asked(prompts):
            return self._finite(requests, partial(super().loglikelihood, disable_tqdm=disable_tqdm))

    @contextmanager
    def _asked(self, prompts: dict[str, Prompt]) -> Iterator[None]:
        """While the context lasts, the parent asks for these prompts, and the weights stay what they are."""
        self._prompts = prompts
        try:
            yield
        finally:
            self._prompts, self._prefixes = {}, {}

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
        whole = super().loglikelihood_rolling
        if not self.settings.parallel:
            return self._finite(requests, partial(whole, disable_tqdm=disable_tqdm))
        prompts = self.split_requests(requests, [1] * len(requests), disable_tqdm)

        def score(requests: list[Instance]) -> list[float]:
            return self._roll(requests, prompts, whole, disable_tqdm)

        return self._finite(requests, score)

    def _roll(
        self,
        requests: list[Instance],
        prompts: Mapping[str, Prompt],
        whole: Callable[[list[Instance], bool], list[float]],
        disable_tqdm: bool,
    ) -> list[float]:
        """Score whole texts piece by piece, those without a context by the parent's `whole`."""
        plain = [request for request in requests if not prompts[request.args[0]].chunks]
        scores = dict(zip(map(id, plain), whole(plain, disable_tqdm) if plain else [], strict=True))
        quiet = disable_tqdm or self.rank != 0
        for request in tqdm(requests, desc="Running loglikelihood_rolling requests", disable=quiet):
            if id(request) in scores:
                continue
            prompt = prompts[request.args[0]]
            with self.autocast():
                score = rolling_loglikelihood(self.model, prompt, self.prefix_token_id, self.settings, self.reading([]))
            scores[id(request)] = score
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, score)
        return [scores[id(request)] for request in requests]

    def _finite(self, requests: list[Instance], work: Callable[[list[Instance]], list[Answer]]) -> list[Answer]:
        """Answer requests; one whose numbers are not finite is told with its document and the layer."""
        try:
            return work(requests)
        except NotFiniteError as error:
            broken = next((request for request in requests if request.args[0] == error.request), None)
            if broken is None:
                raise
            told = explain(self, error, lambda: work([broken]))
            source = Source(str(broken.task_name), int(broken.doc_id or 0), broken.doc)
            raise NotFiniteError(f"{source}: {told.what}", told.dtype, told.place) from None

    def split_requests(self, requests: Sequence[Instance], reserves: Sequence[int], quiet: bool) -> dict[str, Prompt]:
        """Cut all requests before the first is answered, so that a bad one costs no work."""
        window = support.window(self.config.get_text_config(), self.max_length, self.settings)
        ways: tuple[Tokenise, ...] = (self._tokenise, self._tokenise_scored)
        splitters = {tokenise: Splitter(tokenise, self.settings, window) for tokenise in ways}
        prompts: dict[str, Prompt] = {}
        pairs = zip(requests, reserves, strict=True)
        for request, reserve in tqdm(pairs, "Splitting prompts", len(requests), disable=quiet or self.rank != 0):
            text = request.args[0]
            source = Source(str(request.task_name), int(request.doc_id or 0), request.doc)
            splitter = splitters[self._tokeniser(request)]
            if self.settings.chunking == "separator" and not messages_of(text) and self._chat.wrote(text):
                splitter.note_template()
            # The harness moves spaces at a prompt's end to the continuation that it scores.
            cut = text.rstrip() if request.request_type in ("loglikelihood", "multiple_choice") else text
            prompt = splitter.split(cut, source, reserve)
            if prompts.setdefault(text, prompt) != prompt:
                raise ApeError(
                    f"{source}: another request has the same prompt but another context or length to generate, and the "
                    "harness cannot tell them apart; run the two in separate tasks."
                )
            self.note(source, request, prompt)
        tallies = [splitter.tally() for splitter in splitters.values()]
        if self._tallies is None:
            self.report(tallies)
        else:
            self._tallies += tallies
        return prompts

    def note(self, source: Source, request: Instance, prompt: Prompt) -> None:
        """Note how a request was cut."""
        # What is no share, every process cuts.
        written = self._tallies is not None or self.rank == 0
        self.request_log.append(source, request.idx, prompt, written=written)

    def report(self, tallies: Sequence[Tally]) -> None:
        """Say what contexts are, and warn of what was out of the ordinary; the first process does it for all."""
        for task, where in dict.fromkeys(place for tally in tallies for place in tally.places):
            if where not in self.contexts.setdefault(task, []):
                self.contexts[task].append(where)
                if self.rank == 0:
                    logger.info("The context of %s's prompts: %s.", task, where)
        if self.rank == 0:
            warn_of(tallies, self.settings)

    @contextmanager
    def answering_share(self) -> Iterator[list[Tally]]:
        """While the context lasts, requests are a share of what other processes answer too (see `SharedLM`).

        The parent then waits for nobody, and what is out of the ordinary is collected instead of warned of.
        """
        self._tallies = []
        self._world_size = 1
        try:
            yield self._tallies
        finally:
            self._world_size = self.processes.count
            self._tallies = None

    def tokens(self, request: Instance) -> int:
        """How many tokens a request's whole prompt has."""
        return len(self._tokeniser(request)(request.args[0])[0])

    def _tokeniser(self, request: Instance) -> Tokenise:
        return self._tokenise if request.request_type == "generate_until" else self._tokenise_scored

    def _tokenise(self, text: str) -> Tokens:
        """Token ids as the parent's `tok_batch_encode` makes them of a prompt to generate from."""
        special = self.add_bos_token
        if has_bos_prefix(text, self.tokenizer.bos_token):
            special = False
        return self._with_characters(text, special, truncation=self.truncation)

    def _tokenise_scored(self, text: str) -> Tokens:
        """Token ids as the parent's `tok_encode` makes them of a prompt whose continuation is scored."""
        special = self.add_bos_token
        if has_bos_prefix(text, self.tokenizer.decode(self.prefix_token_id)):
            special = False
        return self._with_characters(text, special)

    def _with_characters(self, text: str, special: bool | None, *, truncation: bool = False) -> Tokens:
        """Token ids with the characters that each covers; special tokens by the tokenizer's own rule for None."""
        options = {} if special is None else {"add_special_tokens": special}
        encoding = self.tokenizer(text, return_offsets_mapping=True, truncation=truncation, **options)
        return encoding["input_ids"], encoding["offset_mapping"]

    # Where the parent calls the model

    def tok_batch_encode(
        self,
        strings: list[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Give the parent prompts to generate from as they were cut; `_model_generate` reads their chunks apart."""
        if not all(string in self._prompts for string in strings):
            return super().tok_batch_encode(strings, padding_side, left_truncate_len, truncation)
        self._batch = list(strings)
        prompts = [self._prompts[string].ids for string in strings]
        width = max(map(len, prompts))
        ids = torch.full((len(strings), width), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        return ids, mask

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any) -> Tensor:
        texts, self._batch = self._batch, []
        batch = [self._prompts[text] for text in texts]
        if not any(prompt.chunks for prompt in batch):
            with next_tokens_finite(self.model, texts):
                return super()._model_generate(context, max_length, stop, **generation_kwargs)
        mask = generation_kwargs.pop("attention_mask")

        def generate(rows: slice) -> Tensor:
            options = {**generation_kwargs, "attention_mask": mask[rows]}
            with next_tokens_finite(self.model, texts[rows]):
                return self._generate_rows(batch[rows], context[rows], max_length, stop, **options)

        pieces = self._in_pieces(generate, len(batch))
        # Pieces of a batch may end after different numbers of tokens.
        width = max(piece.shape[1] for piece in pieces)
        padding = self.tokenizer.pad_token_id
        return torch.cat([pad(piece, (0, width - piece.shape[1]), value=padding) for piece in pieces])

    def _generate_rows(
        self, batch: Sequence[Prompt], context: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any
    ) -> Tensor:
        """Encode some prompts and generate from them in one batch.

        `generate` gets the whole prompts, for all of its rules about what was said before, and a cache that has all of
        their tokens but the last ones, which are the queries; a shorter query's row is padded there once more.
        """
        readers = self._encode(batch)
        width = max(len(prompt.query) for prompt in batch)
        before = context.shape[1] - width
        starts = [reader.start - width + len(prompt.query) for reader, prompt in zip(readers, batch, strict=True)]
        readers = [replace(reader, start=start) for reader, start in zip(readers, starts, strict=True)]
        positions = torch.tensor(starts, device=context.device)[:, None] + torch.arange(
            -before, width, device=context.device
        )
        mask = generation_kwargs.pop("attention_mask").clone()
        for row, prompt in enumerate(batch):
            mask[row, before : context.shape[1] - len(prompt.query)] = 0
        with reading_segments(self.model), lengths_unwarned():
            return super()._model_generate(
                context,
                max_length,
                stop,
                attention_mask=mask,
                position_ids=positions.clamp(min=0),
                past_key_values=self._cache(together(readers), before),
                **generation_kwargs,
            )

    def _in_pieces(self, work: Callable[[slice], Answer], rows: int) -> list[Answer]:
        """Do a batch's work, in smaller and smaller pieces as far as memory asks for it; later batches start there."""
        gave_back = False

        def attempt(part: slice) -> Answer:
            nonlocal gave_back
            answer = work(part)
            gave_back = False
            return answer

        def make_room(size: int, error: RuntimeError) -> None:
            nonlocal gave_back
            # Kept chunks can be encoded again: they go before the batch gets smaller. Once only, for the next try keeps
            # its chunks anew.
            kept = self.store is not None and self.store.clear_memory()
            if kept and not gave_back:
                gave_back = True
                logger.warning("Memory is short; the chunks kept in memory are let go.")
                return
            if size == 1:
                raise error
            self._most_rows = half(size)
            logger.warning("Memory is short; going on with %d requests at a time.", self._most_rows)

        return in_pieces(attempt, rows, lambda: self._most_rows, make_room)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        prompts = [self._prompts.get(strings[0]) if strings else None for strings, _, _ in requests]
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
                self._reader, self._query_tokens = reader, len(prompt.query)
                own = [queries[index] for index in indices]
                rows = min(len(indices), self.max_batch_size or len(indices))

                def score(
                    part: slice, own: list[tuple[Any, list[int], list[int]]] = own, rows: int = rows
                ) -> list[tuple[float, bool]]:
                    return super(ApeHFLM, self)._loglikelihood_tokens(
                        own[part], disable_tqdm=True, override_bs=min(rows, self._most_rows or rows)
                    )

                try:
                    scored = [answer for part in self._in_pieces(score, len(own)) for answer in part]
                finally:
                    self._reader = None
                answers.update(zip(indices, scored, strict=True))
                progress.update(len(indices))
        return [answers[index] for index in range(len(requests))]

    def _encoded(
        self, groups: Sequence[list[int]], prompts: Sequence[Prompt]
    ) -> Iterator[tuple[list[int], Prompt, Reader]]:
        """Groups of requests that share a context, with what they read; short contexts are encoded together."""
        firsts = [prompts[indices[0]] for indices in groups]
        for block in blocks([len(prompt.ids) for prompt in firsts]):
            readers = self._encode(firsts[block])
            yield from zip(groups[block], firsts[block], readers, strict=True)

    def _encode(self, prompts: Sequence[Prompt]) -> list[Reader]:
        """Encode prefixes and chunks; a prefix that the prompts before had too is there still."""
        with self.autocast():
            return encode_all(
                self.model, prompts, self.settings, used=self.used, store=self.store, prefixes=self._prefixes
            )

    def _model_call(self, inps: Tensor, attn_mask: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        if self._reader is None or not self._reader.segments:
            return super()._model_call(inps, attn_mask, labels)
        reader = replace(self._reader, rows=inps.shape[0])
        positions = torch.arange(reader.start, reader.start + inps.shape[1], device=inps.device)
        positions = positions.expand_as(inps)
        cache = self._cache([reader])
        with torch.no_grad(), self.autocast(), reading_segments(self.model):
            logits = [
                self.model(inps[:, part], position_ids=positions[:, part], past_key_values=cache).logits
                for part in passes(inps.shape[1], self._query_tokens, self.settings.selection)
            ]
        return logits[0] if len(logits) == 1 else torch.cat(logits, dim=1)

    @contextmanager
    def under(self, settings: Settings) -> Iterator[None]:
        """Encode and read under other settings while the context lasts."""
        before, self.settings = self.settings, settings
        try:
            yield
        finally:
            self.settings = before

    @contextmanager
    def encoding_anew(self) -> Iterator[None]:
        """Read nothing that was encoded before, and leave the store alone, while the context lasts."""
        store, self.store = self.store, None
        self._prefixes = {}
        try:
            yield
        finally:
            self.store = store

    def reading(self, readers: Sequence[Reader]) -> Reading:
        """How a batch reads its segments under the settings, T and S with them."""
        temperature, scale = self.settings.attn_temperature, self.settings.attn_scale
        factors: dict[str, Any] = {"temperature": temperature, "scale": scale}
        if self.settings.factors is not None:
            factors = reading_factors([self.settings.factors], self.device, self.model.dtype)._asdict()
        return Reading(
            tuple(readers),
            **factors,
            scale_mode=self.settings.scale_mode,
            backend=self.settings.attn_backend,
            selection=self.settings.selection,
            used=self.used,
        )

    def _cache(self, readers: Sequence[Reader], before: int = 0) -> SegmentedCache:
        layers = self.model.config.get_text_config().num_hidden_layers
        return SegmentedCache(self.reading(readers), layers, before=before)

    def autocast(self) -> torch.autocast:
        """The precision that `mixed_precision_dtype` asks for; no change without it."""
        dtype = self.mixed_precision_dtype
        return torch.autocast(device_type=self.device.type, dtype=dtype, enabled=dtype is not None)
