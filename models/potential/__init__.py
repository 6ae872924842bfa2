"""Interatomic potentials: one protocol, batches, CHGNet, any ASE calculator, a toy for tests.

Crystals in; energies, forces and stresses out. It relaxes nothing (`hullward.tools.relax` does).
`registry` names the potentials and checks the hashes of their weights. How much a batch holds is
`work_at_once` of each potential.
"""

from hullward.models.potential.ase import UNCORRECTED
from hullward.models.potential.batch import (
    BatchEvaluation,
    BatchPotential,
    CrystalBatch,
    in_batches,
)
from hullward.models.potential.neighbours import TooManyNeighboursError, bonds_within
from hullward.models.potential.protocol import (
    ClashError,
    DeviceLostError,
    Evaluation,
    IsolatedAtomError,
    Potential,
    PotentialCard,
    UnsupportedElementError,
)
from hullward.models.potential.registry import (
    MPTRJ_ELEMENTS,
    load_potential,
    potential_card,
    takes_device,
)

__all__ = [
    "MPTRJ_ELEMENTS",
    "UNCORRECTED",
    "BatchEvaluation",
    "BatchPotential",
    "ClashError",
    "CrystalBatch",
    "DeviceLostError",
    "Evaluation",
    "IsolatedAtomError",
    "Potential",
    "PotentialCard",
    "TooManyNeighboursError",
    "UnsupportedElementError",
    "bonds_within",
    "in_batches",
    "load_potential",
    "potential_card",
    "takes_device",
]
