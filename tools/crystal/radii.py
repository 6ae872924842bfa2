"""Radii of atoms in compounds, and the bond lengths that follow.

If the most electronegative element is a non-metal, it is the anion, and mean ionic radii are used
(Shannon's, 10.1107/S0567739476001551); otherwise metallic ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache

import numpy as np

from hullward.models.crystal import Crystal


def bond_scale(symbols: tuple[str, ...], placed: np.ndarray, distances: np.ndarray) -> float:
    """The factor on all lengths that makes bonds as long as the sum of their radii.

    With an anion the tightest bond between unlike ions decides; without one, the mean over atoms
    of each atom's tightest bond.
    """
    radii = _radii(symbols)[placed]
    ratios = (radii[:, None] + radii[None, :]) / distances
    if not _has_anion(symbols):
        return float(ratios.max(axis=1).mean())
    anion = is_anion(symbols)[placed]
    return float(np.where(anion[:, None] != anion[None, :], ratios, 0.0).max())


def packing_fraction(symbols: tuple[str, ...], placed: np.ndarray, crystal: Crystal) -> float:
    """Share of the cell volume inside the spheres of its atoms."""
    return float((4 / 3 * np.pi * _radii(symbols)[placed] ** 3).sum() / crystal.volume_a3)


@cache
def _radii(symbols: tuple[str, ...]) -> np.ndarray:
    """(k,) Å, of each element in a compound of these."""
    anion = is_anion(symbols)
    return np.array([_radius(s, bool(a), symbols) for s, a in zip(symbols, anion, strict=True)])


def bond_length(cation: str, anion: str) -> float:
    """The sum of mean ionic radii, Å."""
    pair = (cation, anion)
    return _radius(cation, False, pair) + _radius(anion, True, pair)


@cache
def _has_anion(symbols: tuple[str, ...]) -> bool:
    from pymatgen.core import Element

    strongest = max((Element(s) for s in symbols), key=lambda el: el.X)
    return len(symbols) > 1 and not strongest.is_metal and strongest.average_anionic_radius > 0


@cache
def _radius(symbol: str, anion: bool, symbols: tuple[str, ...]) -> float:
    """Radius in Å: ionic in a compound with an anion, else metallic or atomic."""
    from pymatgen.core import Element

    element = Element(symbol)
    if _has_anion(symbols):
        ionic = element.average_anionic_radius if anion else element.average_cationic_radius
        if ionic > 0:
            return float(ionic)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that pymatgen has none
        metallic = element.metallic_radius if element.is_metal else None
    return float(metallic or element.atomic_radius or 1.5)


def is_anion(symbols: Sequence[str]) -> np.ndarray:
    """(k,) whether each element is the most electronegative one."""
    from pymatgen.core import Element

    strength = np.array([Element(s).X for s in symbols])
    return np.asarray(strength == strength.max())
