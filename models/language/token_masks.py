"""The tokens of a vocabulary that a grammar allows next.

A grammar is about characters, a model about tokens: one token may be a digit, a whole coordinate,
or the end of one line and the start of the next. The automaton walks down a tree of the
vocabulary's characters, so any tokenizer works. A token that fits is still refused where no other
token could finish the word it begins.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from hullward.models.language.protocol import Automaton

Node = dict[str, Any]  # character: node; "": ids of the tokens that end here
MAX_STATES = 8192  # remembered for each grammar; about 1 kB each


def token_texts(tokenizer: Any, vocabulary: int) -> list[str]:
    """The text that each token adds after another token; '' for special tokens."""
    special = set(tokenizer.all_special_ids)
    plain = [i for i in range(vocabulary) if i not in special]
    decoded = tokenizer.batch_decode([[i] for i in plain], clean_up_tokenization_spaces=False)
    # a visible token before them: some decoders treat the first token of a text differently
    anchor = next((i for i, t in zip(plain, decoded, strict=True) if t.strip().isalnum()), None)
    if anchor is None:
        return [""] * vocabulary
    before = tokenizer.decode([anchor], clean_up_tokenization_spaces=False)
    both = tokenizer.batch_decode([[anchor, i] for i in plain], clean_up_tokenization_spaces=False)
    texts = [""] * vocabulary
    for i, text in zip(plain, both, strict=True):
        if text.startswith(before):
            texts[i] = text[len(before) :]
    return texts


def vocabulary_tree(texts: Sequence[str]) -> Node:
    """The tree of all plain ASCII tokens, one level a character."""
    tree: Node = {}
    for token, text in enumerate(texts):
        if text and text.isascii():
            node = tree
            for character in text:
                node = node.setdefault(character, {})
            node.setdefault("", []).append(token)
    return tree


class TokenMasks:
    """The tokens one grammar allows in each state; computed once, then remembered."""

    def __init__(self, automaton: Automaton, texts: Sequence[str], tree: Node) -> None:
        self.automaton = automaton
        self._texts = texts
        self._tree = tree
        self._alive: dict[Hashable, bool] = {}
        self.allowed = lru_cache(MAX_STATES)(self._allowed)

    def _allowed(self, state: Hashable) -> list[int]:
        """Ids of all tokens that may come next, apart from end-of-text."""
        return sorted(
            token
            for tokens, behind in self._ends(self._tree, state)
            if self._leads_on(behind)
            for token in tokens
        )

    def after(self, state: Hashable, token: int) -> Hashable:
        """The state after an allowed token."""
        for character in self._texts[token]:
            state = self.automaton.options(state)[character]
        return state

    def _ends(self, node: Node, state: Hashable) -> Iterator[tuple[list[int], Hashable]]:
        """Tokens that fit, with the state after them."""
        if tokens := node.get(""):
            yield tokens, state
            if len(node) == 1:  # no longer token
                return
        for character, behind in self.automaton.options(state).items():
            if (child := node.get(character)) is not None:
                yield from self._ends(child, behind)

    def _leads_on(self, state: Hashable) -> bool:
        """Whether tokens can finish the text from here: no row may reach a dead end."""
        key = self.automaton.outlook(state)
        if key not in self._alive:
            self._alive[key] = True  # meanwhile: a loop is no dead end
            self._alive[key] = self.automaton.may_end(state) or any(
                self._leads_on(behind) for _, behind in self._ends(self._tree, state)
            )
        return self._alive[key]
