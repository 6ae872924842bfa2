"""Any ASE calculator as a potential, one structure at a time.

Unless more is known, a calculator has an energy scheme of its own: its energies compare among
themselves, never with another potential's. A second opinion needs no more.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
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
from hullward.models.potential.neighbours import TooManyNeighboursError, in_compact_cell
from hullward.models.potential.protocol import (
    Evaluation,
    PotentialCard,
    SequentialPotential,
    file_sha256,
)

PREFIX = "ase:"
_SEARCH_A = 6.0  # about the reach of most calculators, which do not state it
UNCORRECTED = "mp2020-uncorrected"  # the Materials Project's DFT energies before MP2020 corrections


@dataclass(frozen=True)
class _Calculator:
    """How to build a calculator. Its weights come in its wheel, or it fetches them on first use."""

    module: str
    factory: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None  # path inside its package; None: not in the wheel
    energy_scheme: str | None = None  # None: its own
    pin: str = ""  # the version that was tested


_SEVENNET = "sevenn.calculator", "SevenNetCalculator"
_SEVENNET_WEIGHTS = "pretrained_potentials/SevenNet_{}/checkpoint_{}.pth"
_SEVENNET_PIN = "==0.13.0"
KNOWN = {
    # Both were trained on the uncorrected energies of MPtrj (DOI 10.1021/acs.jctc.4c00190).
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
    """Whether a potential's name is that of an ASE calculator."""
    return name in KNOWN or name.startswith(PREFIX)


def ase_card(name: str, elements: frozenset[str]) -> PotentialCard:
    """The card of a calculator, with the hash of its weights or else of its package's version.

    name: one of KNOWN, or 'ase:MODULE:FACTORY', a callable that returns the calculator.
    Raises InputError for a name that is neither, PreflightError where the package is absent.
    """
    recipe = _calculator(name)
    top = recipe.module.split(".")[0]
    if find_spec(top) is None:  # the name of a submodule would import the package
        raise PreflightError(
            f"potential {name!r} needs the package {top}: pip install {top}{recipe.pin}"
        )
    return PotentialCard(
        name=name,
        weights_sha256=_identity(recipe, top),
        energy_scheme=recipe.energy_scheme or f"own:{name}",
        elements=elements,
        typical_error_ev_per_atom=None,
        typical_error_source="not stated: a calculator from elsewhere",
    )


def _identity(recipe: _Calculator, top: str) -> str:
    """The hash of the weights, or else of the package's version and the options."""
    package = find_spec(top)
    if recipe.weights is not None and package is not None:
        for folder in package.submodule_search_locations or ():
            path = Path(folder) / recipe.weights
            if path.is_file():
                return file_sha256(path)
    versions = [f"{d}=={version(d)}" for d in packages_distributions().get(top, ())]
    known = [recipe.module, recipe.factory, sorted(recipe.options.items()), *sorted(versions)]
    return hashlib.sha256(repr(known).encode()).hexdigest()


@cache  # takes seconds to build, and every cycle needs it
def load_ase(card: PotentialCard, device: str) -> AsePotential:
    """Build the calculator; raises PreflightError with the reason where that fails."""
    recipe = _calculator(card.name)
    options = dict(recipe.options)
    if card.name in KNOWN:
        options["device"] = device
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about missing accelerators and deprecated torch functions
        try:
            make: Callable[..., Any] = getattr(import_module(recipe.module), recipe.factory)
            calculator = make(**options)
        except Exception as error:  # the package may raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise PreflightError(f"potential {card.name!r} cannot be built: {reason}") from error
    return AsePotential(card, calculator)


def _calculator(name: str) -> _Calculator:
    if name in KNOWN:
        return KNOWN[name]
    module, _, factory = name.removeprefix(PREFIX).partition(":")
    if not name.startswith(PREFIX) or not module or not factory or ":" in factory:
        raise InputError(
            f"{name!r} is no calculator: write 'ase:MODULE:FACTORY', or one of " + ", ".join(KNOWN)
        )
    return _Calculator(module, factory)


class AsePotential(SequentialPotential):
    """Energy, forces and stress from an ASE calculator."""

    def __init__(self, card: PotentialCard, calculator: Any) -> None:
        super().__init__(card)
        self._calculator = calculator

    def _evaluate_one(self, crystal: Crystal) -> Evaluation | Exception:
        from ase import Atoms

        try:
            crystal = in_compact_cell(crystal, _SEARCH_A)
        except TooManyNeighboursError as error:
            return error
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
        except Exception as error:  # a calculator may raise anything
            return error
        return Evaluation(
            energy_ev_per_atom=energy / crystal.n_atoms,
            forces_ev_per_a=forces,
            stress_ev_per_a3=stress,
            magmoms_mu_b=None,
        )
