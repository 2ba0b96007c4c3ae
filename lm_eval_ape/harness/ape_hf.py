"""`ape-hf`: the harness's Hugging Face model, reading its prompts under any encoding strategy.

Everything that is not about encoding (loading, batching, stop strings, sampling, scoring, caching) is the parent's. The
parent knows prompts by their texts: it is given what they were cut to where it tokenises them, and the chunks that they
read where it calls the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook
from lm_eval.models.utils import normalize_gen_kwargs
from tqdm import tqdm
from transformers import PreTrainedModel

from lm_eval_ape.artefacts.identity import check_weights
from lm_eval_ape.attention.segments import EncodedPrompt
from lm_eval_ape.encoding.devices import input_device
from lm_eval_ape.encoding.kv_store.store import DEFAULT_DIR_BYTES, StoreLimits, open_store
from lm_eval_ape.engine import support
from lm_eval_ape.engine.engine import Engine
from lm_eval_ape.engine.generation_options import check_generation, check_lengths
from lm_eval_ape.engine.non_finite import NotFiniteError, explain
from lm_eval_ape.engine.rolling import rolling_loglikelihood
from lm_eval_ape.errors import ApeError
from lm_eval_ape.harness.arguments import split_arguments
from lm_eval_ape.harness.asked import Asked, ContextKey, context_key
from lm_eval_ape.harness.chunk_reading import ChunkReadingHFLM
from lm_eval_ape.harness.prompt_ids import PromptIds
from lm_eval_ape.harness.requests import RequestCutter, source_of
from lm_eval_ape.harness.response_cache import FiniteResponses, guard, identity
from lm_eval_ape.harness.shared_evaluation import share_evaluation
from lm_eval_ape.prompts.chat import ChatFormat
from lm_eval_ape.prompts.prompt import Prompt, Source
from lm_eval_ape.prompts.request_log import RequestLog
from lm_eval_ape.prompts.tally import Tally
from lm_eval_ape.runtime.processes import Processes, be_quiet_unless_first, join
from lm_eval_ape.storage.loading import loading_told
from lm_eval_ape.version import __version__

Answer = TypeVar("Answer")


class ApeHFLM(ChunkReadingHFLM):
    """Any RoPE decoder of Hugging Face under sequential, parallel, sink or APE encoding (`--model ape-hf`).

    Args:
        pretrained: Name or path of the model, or a loaded one, as in the harness's `hf`; `pocket` is the one that the
            package ships.
        request_log: File to which one JSON line a request is appended: its task and document, the tokens of its
            prefix, chunks and query, how many tokens were dropped, and with a retriever which chunks it kept; with
            `recompute` another line, once it is read, that says how many tokens of each chunk were recomputed.
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
        limits = StoreLimits.read(kv_cache_bytes, kv_cache_dir, kv_cache_dir_bytes)
        if not torch.cuda.is_available() and str(rest.get("device", "cuda")).startswith("cuda"):
            # lm_eval's command line says cuda:0 where nothing was asked for.
            rest["device"] = "cpu"
        self.processes = Processes()
        if isinstance(pretrained, str) and rest.get("tp_plan") is None:
            be_quiet_unless_first()
            # Before the weights are read, so that the others learn of it if that fails here.
            self.processes = join()
        self.gguf_file: str | None = rest.get("gguf_file")
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
        dtype = self.mixed_precision_dtype
        store = open_store(self.model, input_device(self.model), limits, facts=str(dtype))
        self.engine = Engine(self.model, settings, store, autocast_dtype=dtype)
        ids = PromptIds(self.tokenizer, self.add_bos_token, self.prefix_token_id, self.truncation)
        chat = ChatFormat(super().apply_chat_template, self._close_chat)
        # The requests that read each context, where some of its tokens are recomputed.
        self._readers: dict[ContextKey, list[tuple[Source, int]]] = {}
        self.cutter = RequestCutter(ids, chat, log, first=self.rank == 0)

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

                    def seen(encoded: EncodedPrompt, prompt: Prompt = prompt) -> None:
                        if self.settings.recompute:
                            self.note_recomputed(prompt, encoded.recomputed_in_chunks)

                    with self.engine.autocast():
                        engine = self.engine.without_store()
                        found = rolling_loglikelihood(engine, prompt, self.prefix_token_id, seen)
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
        self._readers = {}
        return self.cutter.cut(requests, reserves, self.settings, window, quiet=quiet, noted=self.note)

    def note(self, source: Source, request: Instance, prompt: Prompt) -> None:
        """Take note of how a request was cut."""
        if self.settings.recompute:
            key = context_key(prompt, self.settings)
            self._readers.setdefault(key, []).append((source, request.idx))

    def note_recomputed(self, prompt: Prompt, tokens: Sequence[int]) -> None:
        """Log how many tokens of each chunk were recomputed for the requests that read a prompt's context."""
        for source, number in self._readers.get(context_key(prompt, self.settings), []):
            self.cutter.log.append_recomputed(source, number, tokens)

    @contextmanager
    def answering_share(self) -> Iterator[list[Tally]]:
        """While the context lasts, requests are a share of what other processes answer too (see `SharedLM`).

        The parent then does not wait, and what is out of the ordinary is collected instead of warned of.
        """
        self._world_size = 1
        try:
            with self.cutter.sharing() as tallies:
                yield tallies
        finally:
            self._world_size = self.processes.count
