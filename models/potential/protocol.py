"""What an interatomic potential is: its card, its answers, its errors, its interface."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
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
    """An element that the potential has no parameters for."""


class ClashError(ValueError):
    """Two atoms closer than the caller allows."""


class DeviceLostError(RuntimeError):
    """The accelerator failed; nothing can be computed in this process any more."""


def out_of_memory(error: Exception) -> MemoryError | None:
    """The error as a MemoryError where torch ran out of memory, on whatever device; else None."""
    is_torch = isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError"
        or "allocate memory" in str(error)  # the message of the CPU's allocator
        or "out of memory" in str(error)
    )
    return MemoryError(str(error)) if is_torch else None


class Potential(Protocol):
    """Energies, forces and stresses of crystals."""

    @property
    def card(self) -> PotentialCard: ...

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation | Exception]:
        """One answer a crystal, in order.

        A crystal that cannot be evaluated gets its exception (IsolatedAtomError,
        UnsupportedElementError, MemoryError, …) and does not spoil the others. Non-finite numbers
        are returned as they come; the caller decides what to do with them.
        """


class SequentialPotential(ABC):
    """A potential that takes one crystal after the other, its elements checked first."""

    def __init__(self, card: PotentialCard) -> None:
        self._card = card

    @property
    def card(self) -> PotentialCard:
        return self._card

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation | Exception]:
        """As `Potential.evaluate`."""
        return [self._check_and_evaluate(crystal) for crystal in crystals]

    def _check_and_evaluate(self, crystal: Crystal) -> Evaluation | Exception:
        if unknown := sorted(set(crystal.species) - self._card.elements):
            return UnsupportedElementError(
                f"{self._card.name} has no parameters for {', '.join(unknown)}"
            )
        try:
            answer = self._evaluate_one(crystal)
        except RuntimeError as error:
            answer = error
        if isinstance(answer, Exception):
            return out_of_memory(answer) or answer
        return answer

    @abstractmethod
    def _evaluate_one(self, crystal: Crystal) -> Evaluation | Exception:
        """The evaluation of a crystal of known elements, or the exception that ends it."""


@cache
def file_sha256(path: Path) -> str:
    """The hash of a weight file, computed once a process."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
