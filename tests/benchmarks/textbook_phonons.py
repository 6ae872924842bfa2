"""Vibrations of textbook crystals by CHGNet, beside the known answers in RESULTS.md.

    OMP_NUM_THREADS=1 python -W ignore tests/benchmarks/textbook_phonons.py

Prints the rows of RESULTS.md.
"""

from __future__ import annotations

from ase.build import bulk
from ase.spacegroup import crystal
from common import options

from hullward.models.crystal import Crystal
from hullward.models.potential import load_potential
from hullward.tools.relax import check_phonons

PEROVSKITES = {"BaTiO3": 4.0, "KNbO3": 4.0, "SrTiO3": 3.905, "CaTiO3": 3.85, "CsPbI3": 6.3}
OTHERS = {
    "Si": bulk("Si", "diamond", 5.43),
    "GaAs": bulk("GaAs", "zincblende", 5.65),
    "NaCl": bulk("NaCl", "rocksalt", 5.64),
    "MgO": bulk("MgO", "rocksalt", 4.21),
    "CaF2": bulk("CaF2", "fluorite", 5.46),
}


def perovskite(formula: str, edge: float):
    from pymatgen.core import Composition

    a, b, x = (el.symbol for el in Composition(formula).elements)
    sites = [(0.5, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0)]
    return crystal([a, b, x], sites, spacegroup=221, cellpar=[edge] * 3 + [90] * 3)


def main() -> None:
    options(__doc__).parse_args()
    potential = load_potential("chgnet-0.3.0")
    cells = OTHERS | {name: perovskite(name, edge) for name, edge in PEROVSKITES.items()}
    for name, atoms in cells.items():
        cell = Crystal.from_arrays(
            atoms.cell.array, atoms.get_chemical_symbols(), atoms.get_scaled_positions()
        )
        check = check_phonons(name, name, cell, potential)
        print(f"{name}: {check.words}; {check.force_calls} force calls, {check.cpu_s:.1f} CPU s")


if __name__ == "__main__":
    main()
