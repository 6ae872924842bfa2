"""LLaMat-2-CIF's published figures by formula, measured again by us on its saved outputs.

    python tests/benchmarks/published_figures.py DATA

DATA/known/llamat2_generated.parquet holds one output for each of the first 7,000 MP-20 test
formulas in order, without the requested formulas; DATA/structures/mp_structures.parquet holds a
part of that test set in its order. The longest common subsequence of both lists gives the formulas
that correct outputs answer; the other outputs are in between.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from common import LLAMAT2_OUTPUTS, mp20_test_set, options

from hullward.models.crystal import Crystal
from hullward.tools.evaluation import evaluate, read_attempts
from hullward.tools.evaluation.attempts import Attempt
from hullward.tools.evaluation.smact import random_amounts, smact_valid
from hullward.tools.records import Wish

SHORTEST_A, SHARPEST = 1.5, 20  # what a cell read from a garbled first line falls below


def main() -> None:
    warnings.simplefilter("ignore")
    parser = options(__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    attempts = read_attempts(data / LLAMAT2_OUTPUTS)
    crystals = mp20_test_set(data)
    sane = [a for a in attempts if isinstance(a.found, Crystal) and _sane(a.found)]
    formulas = [c.formula for c in crystals]
    written = [a.found.formula if isinstance(a.found, Crystal) else "" for a in attempts]
    pairs, asked = common_subsequence(written, formulas)
    figures = {
        "all": _short(evaluate(attempts, like=crystals)),
        "of_a_cell_that_can_be": _short(evaluate(sane, like=crystals)),
        "test_set_itself": _short(
            evaluate([Attempt("", c, Wish()) for c in crystals], like=crystals)
        ),
        "extracted": len(sane) / len(attempts),
        "formulas_asked_that_we_know": asked,
        "formula_match": len(pairs) / asked,
        "formula_match_of_a_cell_that_can_be": sum(_sane(attempts[i].found) for i, _ in pairs)
        / asked,
        "control_of_the_test_set": float(
            np.mean(
                [smact_valid(a) for a in random_amounts([Counter(c.species) for c in crystals])]
            )
        ),
    }
    print(json.dumps(figures, indent=1))


def _sane(crystal: object) -> bool:
    """Whether a cell is plausible, not read from a garbled first line."""
    if not isinstance(crystal, Crystal):
        return False
    lengths, angles = crystal.parameters
    return min(lengths) >= SHORTEST_A and SHARPEST <= min(angles) <= max(angles) <= 180 - SHARPEST


def common_subsequence(written: list[str], asked: list[str]) -> tuple[list[tuple[int, int]], int]:
    """Pairs of a longest common subsequence, and how many of `asked` its reach covers."""
    names = {name: i for i, name in enumerate(sorted({*written, *asked} - {""}))}
    one = np.array([names.get(x, -1) for x in written])
    two = np.array([names[x] for x in asked])
    best = np.zeros((len(one) + 1, len(two) + 1), dtype=np.int16)
    for i, name in enumerate(one):
        best[i + 1, 1:] = np.maximum.accumulate(
            np.maximum(best[i, :-1] + (two == name), best[i, 1:])
        )
    i, j = len(one), int(best[-1].argmax())  # the first place where all of it is found
    pairs, reach = [], j
    while i and j:
        if one[i - 1] == two[j - 1] and best[i, j] == best[i - 1, j - 1] + 1:
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif best[i - 1, j] >= best[i, j - 1]:
            i -= 1
        else:
            j -= 1
    return pairs[::-1], reach


def _short(found: dict) -> dict:
    shares = dict(found["rates"])
    for part, key in (("parsed", "of_those_that_parsed"), ("valid", "of_the_valid")):
        shares |= {f"{part}: {name}": share for name, share in found[key].items()}
    return {
        **{name: round(share.value, 4) for name, share in shares.items()},
        "wasserstein": found["wasserstein"],
    }


if __name__ == "__main__":
    main()
