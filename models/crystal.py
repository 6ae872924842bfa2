"""A crystal as plain numbers: the input and output of every model."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Composition, Structure

Vector = tuple[float, float, float]
Symbol = Annotated[str, Field(pattern=r"^[A-Z][a-z]?$")]


class Crystal(BaseModel):
    """A periodic arrangement of fully occupied sites.

    lattice: (3, 3) Å, one lattice vector a row.  species: n element symbols.
    frac_coords: (n, 3), fractions of the lattice vectors, not necessarily wrapped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    lattice: tuple[Vector, Vector, Vector]
    species: tuple[Symbol, ...] = Field(min_length=1)
    frac_coords: tuple[Vector, ...]

    @model_validator(mode="after")
    def _one_coordinate_a_site(self) -> Crystal:
        if len(self.species) != len(self.frac_coords):
            raise ValueError(f"{len(self.species)} species but {len(self.frac_coords)} coordinates")
        return self

    @classmethod
    def from_arrays(cls, lattice: object, species: Sequence[str], frac_coords: object) -> Crystal:
        """Build from (3, 3) and (n, 3) array-likes."""
        matrix = np.asarray(lattice, dtype=float).reshape(3, 3)
        coords = np.asarray(frac_coords, dtype=float).reshape(-1, 3)
        return cls.model_validate(
            {"lattice": matrix.tolist(), "species": list(species), "frac_coords": coords.tolist()}
        )

    @classmethod
    def from_parameters(
        cls,
        lengths: Sequence[float],
        angles: Sequence[float],
        species: Sequence[str],
        frac_coords: object,
    ) -> Crystal:
        """Build from a, b, c (Å) and α, β, γ (degrees).

        Raises ValueError when the six numbers close no cell.
        """
        return cls.from_arrays(lattice_matrix(lengths, angles), species, frac_coords)

    @classmethod
    def from_structure(cls, structure: Structure) -> Crystal:
        """From pymatgen; raises ValueError for partial occupancy or anything but elements."""
        if not structure.is_ordered:
            raise ValueError("partially occupied sites")
        symbols = [site.specie.symbol for site in structure]
        return cls.from_arrays(structure.lattice.matrix, symbols, structure.frac_coords)

    @classmethod
    def from_ase(cls, atoms: Atoms) -> Crystal:
        """From ASE, coordinates wrapped into the cell."""
        coords = atoms.get_scaled_positions()
        return cls.from_arrays(atoms.cell.array, atoms.get_chemical_symbols(), coords)

    def to_structure(self) -> Structure:
        """As pymatgen, without validity checks."""
        from pymatgen.core import Lattice, Structure

        return Structure(Lattice(self.lattice), list(self.species), list(self.frac_coords))

    @property
    def n_atoms(self) -> int:
        return len(self.species)

    @cached_property
    def volume_a3(self) -> float:
        """Cell volume, Å³."""
        return float(abs(np.linalg.det(np.array(self.lattice))))

    @property
    def volume_per_atom_a3(self) -> float:
        return self.volume_a3 / self.n_atoms

    @cached_property
    def composition(self) -> Composition:
        from pymatgen.core import Composition

        return Composition(self.amounts)

    @property
    def amounts(self) -> dict[str, float]:
        """Number of atoms of each element, in the order of their first site."""
        return {el: float(n) for el, n in Counter(self.species).items()}

    @property
    def formula(self) -> str:
        """Reduced formula, pymatgen's spelling."""
        return self.composition.reduced_formula

    @property
    def chemsys(self) -> str:
        """Elements in alphabetical order joined by hyphens, e.g. 'Li-Mn-O'."""
        return "-".join(sorted(set(self.species)))

    @cached_property
    def parameters(self) -> tuple[Vector, Vector]:
        """(a, b, c) in Å and (α, β, γ) in degrees."""
        return lattice_parameters(np.array(self.lattice))

    @cached_property
    def content_id(self) -> str:
        """A hash of the cell, equal for equal cells whatever their rotation or site order.

        Lengths and angles are rounded to 1e-4, coordinates wrapped and rounded to 1e-4. Other
        settings of the same crystal get other ids; only the structure matcher finds those equal.
        """
        lengths, angles = self.parameters
        wrapped = np.round(np.mod(np.array(self.frac_coords), 1.0), 4) % 1.0
        sites = sorted(
            (s, *(f"{x + 0.0:.4f}" for x in xyz))
            for s, xyz in zip(self.species, wrapped, strict=True)
        )
        cell = [f"{x + 0.0:.4f}" for x in (*lengths, *angles)]
        text = json.dumps([cell, sites], separators=(",", ":"))
        return "c-" + hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def lattice_parameters(matrix: np.ndarray) -> tuple[Vector, Vector]:
    """(a, b, c) in Å and (α, β, γ) in degrees of a (3, 3) matrix of lattice vectors."""
    a, b, c = (float(np.linalg.norm(v)) for v in matrix)
    pairs = (
        (matrix[1], matrix[2], b * c),
        (matrix[0], matrix[2], a * c),
        (matrix[0], matrix[1], a * b),
    )
    alpha, beta, gamma = (
        math.degrees(math.acos(min(1.0, max(-1.0, float(u @ v) / size)))) if size else 0.0
        for u, v, size in pairs
    )
    return (a, b, c), (alpha, beta, gamma)


def lattice_matrix(lengths: Sequence[float], angles: Sequence[float]) -> np.ndarray:
    """(3, 3) Å matrix with a in the x-z plane and c along z (pymatgen's convention).

    Raises ValueError when lengths are not positive or the angles close no cell.
    """
    a, b, c = (float(x) for x in lengths)
    if not all(math.isfinite(x) and x > 0 for x in (a, b, c)):
        raise ValueError(f"lengths must be positive, got {tuple(lengths)}")
    if not all(math.isfinite(x) and 0 < x < 180 for x in angles):
        raise ValueError(f"angles must be between 0 and 180 degrees, got {tuple(angles)}")
    ca, cb, cg = (math.cos(math.radians(x)) for x in angles)
    squared = 1 - ca * ca - cb * cb - cg * cg + 2 * ca * cb * cg
    if squared <= 1e-10:
        raise ValueError(f"angles {tuple(angles)} close no cell")
    sa, sb = (math.sin(math.radians(x)) for x in angles[:2])
    cos_gamma_star = max(-1.0, min(1.0, (ca * cb - cg) / (sa * sb)))
    sin_gamma_star = math.sqrt(1 - cos_gamma_star**2)
    return np.array(
        [
            [a * sb, 0.0, a * cb],
            [-b * sa * cos_gamma_star, b * sa * sin_gamma_star, b * ca],
            [0.0, 0.0, c],
        ]
    )
