"""A language model in this process: any causal Hugging Face checkpoint in a local folder.

It suits small models such as `hullward-nano-cif`; for 7B models and many users run a server.
Requests are answered in batches with a key-value cache. The same prompt, sampling and seed give
the same text whatever else is in the batch (in float32; see `decoding`).

A constraint with an automaton holds by construction: forbidden tokens are never drawn. Other
constraints are only checked: a text that breaks one carries the fault `unfit`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from hullward.models.language.checkpoint import open_checkpoint
from hullward.models.language.decoding import Row, decode
from hullward.models.language.protocol import (
    Answer,
    Automaton,
    Completion,
    CompletionError,
    Fault,
    Request,
)
from hullward.models.language.token_masks import TokenMasks, token_texts, vocabulary_tree

BATCH = 64  # rows at once; more gain little on a CPU
CACHE_BYTES = 2 << 30  # most memory for keys and values
GRAMMARS = 64  # whose token masks are remembered
CONTEXT_TOKENS = 8  # of the prompt, decoded together with a completion


class LocalModel:
    """Completions from a checkpoint folder, on 'cpu', 'cuda', 'cuda:1', …

    Raises PreflightError where the checkpoint cannot be used (`open_checkpoint`).
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        dtype: str | None = None,
        batch: int = BATCH,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._checkpoint = open_checkpoint(folder, device=device, dtype=dtype)
        self._batch = batch
        self._cache_bytes = cache_bytes
        self._masks_of = lru_cache(GRAMMARS)(self._new_masks)

    @property
    def name(self) -> str:
        """The folder's name and the first digits of its hash."""
        return self._checkpoint.name

    @property
    def context(self) -> int:
        """Most tokens of a prompt and its completion together."""
        return self._checkpoint.context

    def complete(
        self, requests: Sequence[Request], progress: Callable[[int, int], None] | None = None
    ) -> list[Answer]:
        """One answer a request, in order: `sampling.n` completions, or why there are none.

        A completion that reaches the end of the context has the finish reason 'length'.
        progress: called with the numbers of completions done and requested.
        """
        planned = [self._rows(request) for request in requests]
        rows = [row for plan in planned if not isinstance(plan, CompletionError) for row in plan]
        done = 0
        for batch in self._batches(rows):
            decode(self._checkpoint, batch, self._text)
            done += len(batch)
            if progress is not None:
                progress(done, len(rows))
        return [
            plan
            if isinstance(plan, CompletionError)
            else tuple(self._completion(request, row) for row in plan)
            for request, plan in zip(requests, planned, strict=True)
        ]

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Mean natural log-probability a token of each (prompt, continuation)'s continuation.

        Raises ValueError for a pair without a token, or longer than the context.
        """
        return [self._score(prompt, continuation) for prompt, continuation in pairs]

    def _score(self, prompt: str, continuation: str) -> float:
        import torch

        before = self._encode(prompt)
        after = tuple(self._checkpoint.tokenizer.encode(continuation, add_special_tokens=False))
        if not before or not after or len(before) + len(after) > self.context:
            raise ValueError(
                f"prompt and continuation have {len(before)} and {len(after)} tokens; each needs "
                f"one, and together at most {self.context}"
            )
        ids = torch.tensor([before + after], device=self._checkpoint.model.device)
        with torch.inference_mode():
            logits = self._checkpoint.model(input_ids=ids).logits[0, len(before) - 1 : -1]
        logs = torch.log_softmax(logits.float(), dim=-1)
        return float(logs.gather(1, ids[0, len(before) :, None]).mean())

    def _rows(self, request: Request) -> list[Row] | CompletionError:
        """The rows of a request, without tokens yet."""
        prompt = self._prompt(request)
        if isinstance(prompt, CompletionError):
            return prompt
        room = self.context - len(prompt)
        if room < 1:
            return _refused(
                request,
                f"its prompt has {len(prompt)} tokens and the context of {self.name} is "
                f"{self.context}: shorten it",
                "context",
            )
        masks = None
        if request.constraint is not None and request.constraint.automaton is not None:
            if not self._checkpoint.ends:
                return _refused(request, f"{self.name} has no end-of-text token", "refused")
            masks = self._masks_of(request.constraint.automaton)
            if not masks.allowed(masks.automaton.start()):
                return _refused(
                    request, f"no token of {self.name} can begin a text of its grammar", "refused"
                )
        return [
            Row(
                prompt=prompt,
                sampling=request.sampling,
                index=index,
                limit=min(room, request.sampling.max_tokens),
                masks=masks,
            )
            for index in range(request.sampling.n)
        ]

    def _prompt(self, request: Request) -> tuple[int, ...] | CompletionError:
        """Token ids of the prompt."""
        tokenizer = self._checkpoint.tokenizer
        text, special = request.prompt, True
        if request.messages:
            if not tokenizer.chat_template:
                return _refused(
                    request, f"{self.name} has no chat template: ask with a prompt", "refused"
                )
            turns = [{"role": m.role, "content": m.content} for m in request.messages]
            try:
                text = tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=True
                )
            except Exception as error:  # a template may raise anything
                return _refused(request, f"its chat template fails: {error}", "refused")
            special = False
        ids = self._encode(text, special)
        if not ids:
            return _refused(request, "its prompt is empty", "refused")
        return ids

    def _encode(self, text: str, special: bool = True) -> tuple[int, ...]:
        ids = self._checkpoint.tokenizer.encode(text, add_special_tokens=special)
        while ids and ids[-1] in self._checkpoint.ends and special:
            ids.pop()  # some tokenizers end a text with it, which would stop the completion
        return tuple(ids)

    def _batches(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Rows of similar length together, to pad little, within batch size and memory."""
        ordered = sorted(rows, key=lambda row: (len(row.prompt) + row.limit, row.prompt))
        batches: list[list[Row]] = []
        for row in reversed(ordered):  # the longest first: the others fit where it does
            if batches and len(batches[-1]) < min(self._batch, self._fitting(batches[-1][0])):
                batches[-1].append(row)
            else:
                batches.append([row])
        return batches

    def _fitting(self, row: Row) -> int:
        """Number of rows of this length whose keys and values fit into memory."""
        config = self._checkpoint.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or (
            config.hidden_size // config.num_attention_heads
        )
        number = self._checkpoint.model.dtype.itemsize
        a_token = 2 * config.num_hidden_layers * heads * width * number
        return max(1, int(self._cache_bytes // (a_token * (len(row.prompt) + row.limit))))

    def _new_masks(self, automaton: Automaton) -> TokenMasks:
        return TokenMasks(automaton, *self._tree)

    @cached_property
    def _tree(self) -> tuple[list[str], dict[str, Any]]:
        texts = token_texts(self._checkpoint.tokenizer, self._checkpoint.vocabulary)
        return texts, vocabulary_tree(texts)

    def _text(self, row: Row) -> str:
        """A row's tokens as the text that follows its prompt."""
        before = row.prompt[-CONTEXT_TOKENS:]
        decode = partial(
            self._checkpoint.tokenizer.decode,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        # nothing is cut where the decoder has changed the text before
        return str(decode([*before, *row.tokens])).removeprefix(decode(list(before)))

    def _completion(self, request: Request, row: Row) -> Completion:
        text = self._text(row)
        if row.stopped_by is not None:
            text = text[: text.index(row.stopped_by)]
        finish = row.finish or "unknown"
        fault: Fault | None = None
        if not text.strip():
            fault = "empty"
        elif finish == "length":
            fault = "truncated"
        elif request.constraint is not None and request.constraint.flaw(text) is not None:
            fault = "unfit"
        return Completion(
            text=text,
            model=self.name,
            finish_reason=finish,
            prompt_tokens=len(row.prompt),
            completion_tokens=len(row.tokens),
            mean_logprob=sum(row.logprobs) / len(row.logprobs) if row.logprobs else None,
            fault=fault,
        )


def _refused(request: Request, why: str, kind: Fault) -> CompletionError:
    return CompletionError(f"request {request.request_id}: {why}", retry=False, kind=kind)
