"""Grammars whose texts are words from finite lists, as automata over characters and as GBNF.

A grammar defines which words may follow in each state and the state after each word. From that,
this module derives for all grammars the steps of single characters (for models in this process) and
GBNF rules of the same texts (for servers). Lists of words must be prefix-free: none begins another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping
from functools import cache, cached_property
from typing import Any, Generic, TypeVar

from hullward.models.errors import InputError

Memory = TypeVar("Memory", bound=Hashable)  # what a grammar remembers between words
State = tuple[Memory, str]  # and the characters of the current word
Tree = dict[str, "Tree"]  # characters of words; an empty tree ends one

MAX_RULES = 5_000


class Words(tuple[str, ...]):
    """A prefix-free list of words. It keeps its tree, so lists should be cached and reused."""

    __hash__ = object.__hash__  # by identity: lists can be long and are often looked up

    def __eq__(self, other: object) -> bool:
        return self is other

    @cached_property
    def tree(self) -> Tree:
        tree: Tree = {}
        for word in self:
            node = tree
            for character in word:
                node = node.setdefault(character, {})
        return tree

    def rest(self, prefix: str) -> Tree:
        """The tree of the continuations of a prefix."""
        node = self.tree
        for character in prefix:
            node = node[character]
        return node


class WordGrammar(ABC, Generic[Memory]):
    """Texts made of words. Subclasses are frozen dataclasses: equal ones allow the same texts."""

    @abstractmethod
    def first(self) -> Memory:
        """The memory before the first word."""

    @abstractmethod
    def words(self, memory: Memory) -> Words:
        """All words that may come next."""

    @abstractmethod
    def after(self, memory: Memory, word: str) -> Memory:
        """The memory after one of these words."""

    @abstractmethod
    def ends(self, memory: Memory) -> bool:
        """Whether a text may end here."""

    @abstractmethod
    def kind(self, memory: Memory) -> Hashable:
        """The kind of word that comes next, whatever its values."""

    def without_values(self, memory: Memory) -> Memory:
        """The memory without what context-free rules cannot express or would multiply."""
        return memory

    # an automaton over characters (hullward.models.language.protocol.Automaton)

    def start(self) -> State[Memory]:
        return self.first(), ""

    def options(self, state: Any) -> Mapping[str, State[Memory]]:
        memory, prefix = state
        words = self.words(memory)
        found: dict[str, State[Memory]] = {}
        for character, behind in words.rest(prefix).items():
            word = prefix + character
            found[character] = (memory, word) if behind else (self.after(memory, word), "")
        return found

    def may_end(self, state: Any) -> bool:
        memory, prefix = state
        return not prefix and self.ends(memory)

    def outlook(self, state: Any) -> Hashable:
        memory, prefix = state
        kind = self.kind(memory)
        return (kind, _expression(self.words(memory).rest(prefix))) if prefix else kind

    # rules

    def gbnf(self) -> str:
        """The same texts as GBNF rules, apart from what `without_values` drops.

        Raises InputError for more than MAX_RULES rules.
        """
        rules: dict[Memory, str] = {self.without_values(self.first()): "root"}
        lists: dict[tuple[str, ...], str] = {}
        lines: list[str] = []
        waiting = list(rules)
        while waiting:
            memory = waiting.pop()
            alternatives = ['""'] if self.ends(memory) else []
            for name, following in self._successors(memory, lists):
                path = [name]
                while not self.ends(following):  # a single successor needs no rule of its own
                    successors = self._successors(following, lists)
                    if len(successors) != 1 or following in rules:
                        break
                    path.append(successors[0][0])
                    following = successors[0][1]
                if following not in rules:
                    rules[following] = f"s{len(rules)}"
                    waiting.append(following)
                    if len(rules) > MAX_RULES:
                        raise InputError(
                            f"the grammar needs more than {MAX_RULES} rules: allow fewer atoms"
                        )
                alternatives.append(" ".join([*path, rules[following]]))
            lines.append(f"{rules[memory]} ::= {' | '.join(alternatives)}")
        named = [f"{name} ::= {_expression(Words(words).tree)}" for words, name in lists.items()]
        return "\n".join([*lines, *named]) + "\n"

    def _successors(
        self, memory: Memory, lists: dict[tuple[str, ...], str]
    ) -> list[tuple[str, Memory]]:
        """(name of a list of words, memory after any of them) for all words that may follow."""
        behind: dict[Memory, list[str]] = {}
        for word in self.words(memory):
            behind.setdefault(self.without_values(self.after(memory, word)), []).append(word)
        return [
            (lists.setdefault(tuple(words), f"w{len(lists)}"), following)
            for following, words in behind.items()
        ]


def _expression(tree: Tree) -> str:
    """A tree of characters as GBNF; characters with equal continuations form one class."""
    classes: dict[str, list[str]] = {}
    for character, behind in tree.items():
        classes.setdefault(_expression(behind) if behind else "", []).append(character)
    parts = []
    for behind_text, characters in classes.items():
        if len(characters) == 1:
            parts.append(f'"{_escaped(characters[0])}" {behind_text}'.strip())
        else:
            inside = "".join(_escaped(c) for c in sorted(characters))
            parts.append(f"[{inside}] {behind_text}".strip())
    return parts[0] if len(parts) == 1 else f"({' | '.join(parts)})"


def _escaped(character: str) -> str:
    return {"\n": "\\n", '"': '\\"', "\\": "\\\\", "]": "\\]", "-": "\\-"}.get(character, character)


@cache
def numbered(first: int, last: int, suffix: str = "", decimals: int = 0) -> Words:
    """The numbers from first to last, in units of the last decimal, each with a suffix.

    >>> numbered(98, 101, " ", decimals=2)
    ('0.98 ', '0.99 ', '1.00 ', '1.01 ')
    """
    scale = 10**decimals
    return Words(f"{n / scale:.{decimals}f}{suffix}" for n in range(first, last + 1))


def suffixed(words: Iterable[str], prefix: str = "", suffix: str = "") -> Words:
    """Every word between a prefix and a suffix."""
    return Words(f"{prefix}{word}{suffix}" for word in words)
