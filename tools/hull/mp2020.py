"""The Materials Project's corrections of 2020, from uncorrected DFT energies to its hull's scale.

Anions, and metals that are given a Hubbard U in oxides and fluorides (DOI
10.1038/s41598-021-94550-5). CHGNet 0.3.0 was trained on corrected energies, most other networks on
uncorrected ones; they compare once the second are corrected too.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

from hullward.models.crystal import Crystal

# eV, as in the Materials Project's inputs; applied only with oxygen or fluorine.
HUBBARD_U = {
    "Co": 3.32,
    "Cr": 3.7,
    "Fe": 5.3,
    "Mn": 3.9,
    "Mo": 4.38,
    "Ni": 6.2,
    "V": 3.25,
    "W": 6.2,
}


def correction_ev_per_atom(crystal: Crystal) -> float:
    """The correction of a DFT energy of this structure, eV/atom.

    Bond lengths distinguish peroxides and superoxides from oxides. Raises ValueError where the
    scheme refuses the composition.
    """
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    structure = crystal.to_structure()
    elements = {str(el) for el in structure.composition.elements}
    with_u = bool(elements & {"O", "F"}) and bool(elements & HUBBARD_U.keys())
    values = {el: HUBBARD_U.get(el, 0.0) for el in elements} if with_u else {}
    entry = ComputedStructureEntry(
        structure,
        0.0,
        parameters={"run_type": "GGA+U" if with_u else "GGA", "hubbards": values},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of every composition whose charges it guesses
        done = _scheme().process_entry(entry)
    if done is None:
        raise ValueError(f"the MP2020 corrections refuse {crystal.formula}")
    return float(done.correction) / crystal.n_atoms


@cache
def _scheme() -> Any:
    from pymatgen.entries.compatibility import MaterialsProject2020Compatibility

    return MaterialsProject2020Compatibility(check_potcar=False)
