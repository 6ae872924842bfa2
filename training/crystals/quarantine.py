"""Crystals that no model of ours may learn from: they are kept to judge generators.

Two rules, fixed before the first training step and never changed afterwards:

1. every reduced formula (pymatgen's spelling) whose sha256, read as a number, ends in the digit 0
   or 1: one formula in five, chosen by the hash alone;
2. every crystal whose chemical system is listed in `data/quarantine.yaml`: whole systems, for the
   benchmarks that search one.

Weights, tokenizers, example prompts and sampling temperatures are made without them.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

from hullward.models.crystal import Crystal

_DIGITS = frozenset({0, 1})


def quarantined_formula(reduced_formula: str) -> bool:
    """Rule 1. The spelling matters: pass `Crystal.formula`, e.g. 'LiFePO4'.

    >>> quarantined_formula("NaCl"), quarantined_formula("SrTiO3")
    (False, False)
    """
    return int(hashlib.sha256(reduced_formula.encode()).hexdigest(), 16) % 10 in _DIGITS


@cache
def quarantined_systems() -> frozenset[str]:
    """Rule 2: systems in the spelling of `Crystal.chemsys`, e.g. 'Mn-Na-O'."""
    import yaml

    text = (files("hullward.data") / "quarantine.yaml").read_text(encoding="utf-8")
    return frozenset(yaml.safe_load(text)["systems"])


def in_quarantine(reduced_formula: str, chemsys: str) -> bool:
    """Whether either rule holds a crystal back. `chemsys`: elements in alphabetical order."""
    return quarantined_formula(reduced_formula) or chemsys in quarantined_systems()


def is_quarantined(crystal: Crystal) -> bool:
    """Whether no model may learn from a crystal."""
    return in_quarantine(crystal.formula, crystal.chemsys)
