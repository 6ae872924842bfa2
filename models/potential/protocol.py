"""What an interatomic potential is, whoever made it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np

from hullward.models.crystal import Crystal


@dataclass(frozen=True, kw_only=True)
class PotentialCard:
    """Everything about a potential that a verdict depends on."""

    name: str  # as in a campaign file, e.g. 'chgnet-0.3.0'
    weights_sha256: str
    energy_scheme: str  # energies compare only within one scheme, e.g. 'mp2020-corrected'
    elements: frozenset[str]
    typical_error_ev_per_atom: float | None  # of distance to the hull, against DFT; None: unstated
    typical_error_source: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One structure, evaluated once."""

    energy_ev_per_atom: float
    forces_ev_per_a: np.ndarray  # (n, 3)
    stress_ev_per_a3: np.ndarray  # (3, 3), ASE's sign: positive pulls the cell together
    magmoms_mu_b: np.ndarray | None  # (n,)


class IsolatedAtomError(ValueError):
    """An atom without neighbours inside the cut-off: the energy would mean nothing."""


class UnsupportedElementError(ValueError):
    """An element the potential was never trained on."""


class ClashError(ValueError):
    """Two atoms closer than the caller allows."""


class DeviceLostError(RuntimeError):
    """The accelerator failed; nothing can be computed in this process any more."""


class Potential(Protocol):
    """Energies, forces and stresses of crystals."""

    @property
    def card(self) -> PotentialCard: ...

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation | Exception]:
        """One answer a crystal, in order.

        A crystal that cannot be evaluated gets its exception (IsolatedAtomError,
        UnsupportedElementError, MemoryError, …) and does not spoil the others. Non-finite numbers
        are returned as they come: the caller decides what they end.
        """
        ...


@cache
def file_sha256(path: Path) -> str:
    """The hash of a weight file, computed once a process."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
