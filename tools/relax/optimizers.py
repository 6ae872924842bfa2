"""Optimizers by name."""

from __future__ import annotations

from typing import Literal

from hullward.tools.relax.fire import Fire
from hullward.tools.relax.variables import CellVariables, Optimiser


def make_optimiser(name: Literal["fire", "bfgs", "fire-bfgs"], walk: CellVariables) -> Optimiser:
    """An optimiser of that name for structures standing where this walk begins."""
    if name == "fire":
        return Fire(walk)
    from hullward.tools.relax.trust_region import FireThenBfgs, TrustRegionBfgs

    return TrustRegionBfgs(walk) if name == "bfgs" else FireThenBfgs(walk)
