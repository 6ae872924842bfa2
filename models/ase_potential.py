"""Any ASE calculator behind the potential protocol, one structure at a time.

Its energies are on a scheme of their own: they compare among themselves, never with another
potential's, which is all that a second opinion needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from typing import Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, PreflightError
from hullward.models.potential import (
    Evaluation,
    PotentialCard,
    UnsupportedElementError,
)

PREFIX = "ase:"
# What their makers call the factory of a ready calculator. Weights are theirs to find: some come
# in the wheel, some are fetched by the package on first use.
KNOWN = {
    "sevennet-0": ("sevenn.calculator", "SevenNetCalculator", {"model": "7net-0"}),
    "mace-mp": ("mace.calculators", "mace_mp", {"default_dtype": "float64"}),
    "mattersim": ("mattersim.forcefield", "MatterSimCalculator", {}),
}


def is_ase(name: str) -> bool:
    """Whether a potential's name means a calculator of this module."""
    return name in KNOWN or name.startswith(PREFIX)


def ase_card(name: str, elements: frozenset[str]) -> PotentialCard:
    """What is known of a calculator: its package's version, as nobody states its weights' hash.

    name: one of KNOWN, or 'ase:MODULE:FACTORY', a callable that gives the calculator.
    Raises InputError for a name that is neither, PreflightError where the package is absent.
    """
    module, factory, options = _parts(name)
    top = module.split(".")[0]
    try:
        there = find_spec(module)
    except (ModuleNotFoundError, ValueError):
        there = None
    if there is None:
        raise PreflightError(f"potential {name!r} needs the package {top}: pip install {top}")
    versions = [f"{d}=={version(d)}" for d in packages_distributions().get(top, ())]
    said = [module, factory, sorted(options.items()), *sorted(versions)]
    return PotentialCard(
        name=name,
        weights_sha256=hashlib.sha256(repr(said).encode()).hexdigest(),
        energy_scheme=f"own:{name}",
        elements=elements,
        typical_error_ev_per_atom=None,
        typical_error_source="not stated: a calculator from elsewhere",
    )


def load_ase(card: PotentialCard, device: str) -> AsePotential:
    """Build the calculator; raises PreflightError saying why it does not come."""
    module, factory, options = _parts(card.name)
    try:
        make: Callable[..., Any] = getattr(import_module(module), factory)
    except (ImportError, AttributeError) as error:
        raise PreflightError(f"potential {card.name!r}: {error}") from error
    if card.name in KNOWN:
        options = {**options, "device": device}
    try:
        calculator = make(**options)
    except Exception as error:  # anything may go wrong in somebody else's factory
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise PreflightError(f"potential {card.name!r} cannot be built: {told}") from error
    return AsePotential(card, calculator)


def _parts(name: str) -> tuple[str, str, dict[str, Any]]:
    if name in KNOWN:
        return KNOWN[name]
    module, _, factory = name.removeprefix(PREFIX).partition(":")
    if not name.startswith(PREFIX) or not module or not factory or ":" in factory:
        raise InputError(
            f"{name!r} names no calculator: write 'ase:MODULE:FACTORY', or one of "
            + ", ".join(KNOWN)
        )
    return module, factory, {}


class AsePotential:
    """A calculator asked for energy, forces and stress."""

    def __init__(self, card: PotentialCard, calculator: Any) -> None:
        self._card, self._calculator = card, calculator

    @property
    def card(self) -> PotentialCard:
        return self._card

    def evaluate(self, crystals: Sequence[Crystal]) -> list[Evaluation | Exception]:
        """As `hullward.models.potential.Potential.evaluate`."""
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
