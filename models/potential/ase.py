"""Any ASE calculator behind the potential protocol, one structure at a time.

Unless more is known, its energies are on a scheme of their own: they compare among themselves,
never with another potential's, which is all that a second opinion needs.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, PreflightError
from hullward.models.potential.protocol import (
    Evaluation,
    PotentialCard,
    UnsupportedElementError,
    file_sha256,
)

PREFIX = "ase:"
UNCORRECTED = "mp2020-uncorrected"  # the Materials Project's DFT energies before MP2020 corrections


@dataclass(frozen=True)
class _Calculator:
    """What makes a ready calculator. Weights come in its wheel, or it fetches them on first use."""

    module: str
    factory: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None  # path inside its package, where they come in the wheel
    energy_scheme: str | None = None  # None: its own
    pin: str = ""  # the version that was tried


_SEVENNET = "sevenn.calculator", "SevenNetCalculator"
_SEVENNET_WEIGHTS = "pretrained_potentials/SevenNet_{}/checkpoint_{}.pth"
_SEVENNET_PIN = "==0.13.0"
KNOWN = {
    # Both learnt MPtrj's uncorrected energies (DOI 10.1021/acs.jctc.4c00190).
    "sevennet-0": _Calculator(
        *_SEVENNET,
        {"model": "7net-0"},
        _SEVENNET_WEIGHTS.format("0__11Jul2024", "sevennet_0"),
        UNCORRECTED,
        _SEVENNET_PIN,
    ),
    "sevennet-l3i5": _Calculator(
        *_SEVENNET,
        {"model": "7net-l3i5"},
        _SEVENNET_WEIGHTS.format("l3i5", "l3i5"),
        UNCORRECTED,
        _SEVENNET_PIN,
    ),
    "mace-mp": _Calculator("mace.calculators", "mace_mp", {"default_dtype": "float64"}),
    "mattersim": _Calculator("mattersim.forcefield", "MatterSimCalculator"),
}


def is_ase(name: str) -> bool:
    """Whether a potential's name means a calculator of this module."""
    return name in KNOWN or name.startswith(PREFIX)


def ase_card(name: str, elements: frozenset[str]) -> PotentialCard:
    """What is known of a calculator: the hash of its weights, or else its package's version.

    name: one of KNOWN, or 'ase:MODULE:FACTORY', a callable that gives the calculator.
    Raises InputError for a name that is neither, PreflightError where the package is absent.
    """
    made_by = _calculator(name)
    top = made_by.module.split(".")[0]
    if find_spec(top) is None:  # deeper ones would be imported
        raise PreflightError(
            f"potential {name!r} needs the package {top}: pip install {top}{made_by.pin}"
        )
    return PotentialCard(
        name=name,
        weights_sha256=_identity(made_by, top),
        energy_scheme=made_by.energy_scheme or f"own:{name}",
        elements=elements,
        typical_error_ev_per_atom=None,
        typical_error_source="not stated: a calculator from elsewhere",
    )


def _identity(made_by: _Calculator, top: str) -> str:
    """The hash of its weights; of all that is known where these are not in its package."""
    package = find_spec(top)
    if made_by.weights is not None and package is not None:
        for folder in package.submodule_search_locations or ():
            path = Path(folder) / made_by.weights
            if path.is_file():
                return file_sha256(path)
    versions = [f"{d}=={version(d)}" for d in packages_distributions().get(top, ())]
    said = [made_by.module, made_by.factory, sorted(made_by.options.items()), *sorted(versions)]
    return hashlib.sha256(repr(said).encode()).hexdigest()


@cache  # seconds to build, and asked for again in every cycle
def load_ase(card: PotentialCard, device: str) -> AsePotential:
    """Build the calculator; raises PreflightError saying why it does not come."""
    made_by = _calculator(card.name)
    options = dict(made_by.options)
    if card.name in KNOWN:
        options["device"] = device
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of accelerators left out, and of what torch will drop
        try:
            make: Callable[..., Any] = getattr(import_module(made_by.module), made_by.factory)
            calculator = make(**options)
        except Exception as error:  # anything may go wrong in somebody else's package
            told = " ".join(f"{type(error).__name__}: {error}".split())
            raise PreflightError(f"potential {card.name!r} cannot be built: {told}") from error
    return AsePotential(card, calculator)


def _calculator(name: str) -> _Calculator:
    if name in KNOWN:
        return KNOWN[name]
    module, _, factory = name.removeprefix(PREFIX).partition(":")
    if not name.startswith(PREFIX) or not module or not factory or ":" in factory:
        raise InputError(
            f"{name!r} names no calculator: write 'ase:MODULE:FACTORY', or one of "
            + ", ".join(KNOWN)
        )
    return _Calculator(module, factory)


class AsePotential:
    """A calculator asked for energy, forces and stress."""

    def __init__(self, card: PotentialCard, calculator: Any) -> None:
        self._card, self._calculator = card, calculator

    @property
    def card(self) -> PotentialCard:
        return self._card

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation | Exception]:
        """As `hullward.models.potential.protocol.Potential.evaluate`."""
        return [self._one(crystal) for crystal in crystals]

    def _one(self, crystal: Crystal) -> Evaluation | Exception:
        from ase import Atoms

        if unknown := sorted(set(crystal.species) - self._card.elements):
            return UnsupportedElementError(
                f"{self._card.name} has no parameters for {', '.join(unknown)}"
            )
        atoms = Atoms(
            symbols=list(crystal.species),
            scaled_positions=np.array(crystal.frac_coords),
            cell=np.array(crystal.lattice),
            pbc=True,
        )
        atoms.calc = self._calculator
        try:
            energy = float(atoms.get_potential_energy())
            forces = np.array(atoms.get_forces(), dtype=float)
            stress = np.array(atoms.get_stress(voigt=False), dtype=float)
        except Exception as error:  # a calculator may raise whatever its authors chose
            return error
        return Evaluation(
            energy_ev_per_atom=energy / crystal.n_atoms,
            forces_ev_per_a=forces,
            stress_ev_per_a3=stress,
            magmoms_mu_b=None,
        )
