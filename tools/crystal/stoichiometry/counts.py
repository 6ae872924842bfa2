"""How often stoichiometries occur among known compounds: by class of element and by charge.

Counted once from lists of formulas (`__main__`) into `data/stoichiometries.parquet`, with columns
level, key and compounds:

- "classes": classes of the elements and their amounts, as 'O:4 g1:1 g7:2' for LiMn2O4;
- "charges": a `charge_pattern` of a compound with an anion.
"""

from __future__ import annotations

import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from hullward.tools.crystal.charges import is_alloy
from hullward.tools.crystal.stoichiometry.balance import balance, charge_pattern
from hullward.tools.crystal.stoichiometry.classes import COARSE, coarse_class, element_class

TABLE = "stoichiometries.parquet"
LEAST_COMPOUNDS = {"classes": 1, "charges": 2}  # rarer rows are not stored
MOST_ELEMENTS = 7

Amounts = tuple[int, ...]
Classes = tuple[str, ...]


@dataclass(frozen=True)
class Stoichiometries:
    """Counts of known compounds."""

    fine: Mapping[Classes, Mapping[Amounts, int]]
    coarse: Mapping[Classes, Mapping[Amounts, int]]
    anonymous: Mapping[int, Mapping[Amounts, int]]  # by number of elements
    charges: Mapping[str, int]

    def of_classes(self, symbols: Sequence[str], coarse: bool = False) -> dict[Amounts, float]:
        """Known compounds of elements of the same classes, by amounts in the order of the symbols.

        A compound that fits in several ways, as one of two alkali metals does, counts in parts.
        """
        classes = [coarse_class(s) if coarse else element_class(s) for s in symbols]
        order = sorted(range(len(symbols)), key=lambda i: classes[i])
        key = tuple(classes[i] for i in order)
        found: dict[Amounts, float] = defaultdict(float)
        for amounts, n in (self.coarse if coarse else self.fine).get(key, {}).items():
            ways = list(_arrangements(key, amounts))
            for way in ways:
                row = [0] * len(symbols)
                for place, amount in zip(order, way, strict=True):
                    row[place] = amount
                found[tuple(row)] += n / len(ways)
        return dict(sorted(found.items()))


def _arrangements(classes: Classes, amounts: Amounts) -> Iterator[Amounts]:
    """Every distinct way to exchange amounts within a class; the classes are sorted."""
    pairs = zip(classes, amounts, strict=True)
    groups = [[n for _, n in g] for _, g in itertools.groupby(pairs, lambda pair: pair[0])]
    for way in itertools.product(*(sorted(set(itertools.permutations(g))) for g in groups)):
        yield tuple(itertools.chain.from_iterable(way))


@cache
def read_stoichiometries() -> Stoichiometries:
    """The table that is shipped, read once a process."""
    import pyarrow.parquet as pq

    raw = (files("hullward.data") / TABLE).read_bytes()
    columns = pq.read_table(io.BytesIO(raw)).to_pydict()
    rows = list(zip(columns["level"], columns["key"], columns["compounds"], strict=True))
    return from_rows(rows)


def from_rows(rows: Iterable[tuple[str, str, int]]) -> Stoichiometries:
    """Counts from (level, key, compounds)."""
    fine: dict[Classes, Counter[Amounts]] = defaultdict(Counter)
    coarse: dict[Classes, Counter[Amounts]] = defaultdict(Counter)
    anonymous: dict[int, Counter[Amounts]] = defaultdict(Counter)
    charges: dict[str, int] = {}
    for level, key, n in rows:
        if level == "charges":
            charges[key] = n
            continue
        pairs = [(name, int(amount)) for name, amount in (p.split(":") for p in key.split())]
        _add(fine, pairs, n)
        _add(coarse, [(COARSE.get(name, name), amount) for name, amount in pairs], n)
        anonymous[len(pairs)][tuple(sorted(amount for _, amount in pairs))] += n
    return Stoichiometries(fine, coarse, anonymous, charges)


def _add(table: dict[Classes, Counter[Amounts]], pairs: list[tuple[str, int]], n: int) -> None:
    pairs = sorted(pairs)
    table[tuple(name for name, _ in pairs)][tuple(amount for _, amount in pairs)] += n


def count_stoichiometries(compounds: Iterable[Mapping[str, int]]) -> list[tuple[str, str, int]]:
    """(level, key, compounds) of reduced amounts, each compound once; sorted."""
    by_system: dict[tuple[str, ...], set[Amounts]] = defaultdict(set)
    for amounts in compounds:
        symbols = tuple(sorted(amounts))
        if 2 <= len(symbols) <= MOST_ELEMENTS:
            by_system[symbols].add(tuple(amounts[s] for s in symbols))
    found: dict[str, Counter[str]] = {"classes": Counter(), "charges": Counter()}
    for symbols, rows in by_system.items():
        for row in rows:
            pairs = sorted(zip(map(element_class, symbols), row, strict=True))
            found["classes"][" ".join(f"{name}:{n}" for name, n in pairs)] += 1
        if not is_alloy(symbols):
            found["charges"].update(_patterns(symbols, sorted(rows)))
    return [
        (level, key, n)
        for level, counted in sorted(found.items())
        for key, n in sorted(counted.items())
        if n >= LEAST_COMPOUNDS[level]
    ]


def _patterns(symbols: tuple[str, ...], rows: Sequence[Amounts]) -> Iterator[str]:
    balanced = balance(symbols, np.array(rows))
    for number, row in enumerate(rows):
        if (states := balanced.of(number)) is not None:
            yield charge_pattern(symbols, row, states)
