"""Record of the cell that a relaxed candidate becomes in a higher space group."""

from __future__ import annotations

from hullward.models.crystal import Crystal
from hullward.tools.records.base import Count, Record


class SymmetrisedCell(Record):
    """A relaxed cell moved into a higher space group within a tolerance, and whether it is that.

    Of several groups tried, the highest that is accepted, or else the highest. Energies are those
    of the potential that relaxed it. The relaxation and its verdicts stay as they are.
    """

    relaxation_id: str
    candidate_id: str
    tolerance_a: float | None  # of the symmetry search, Å; None: no higher group could be built
    space_group: int | None  # international number of the higher group
    accepted: bool
    reason: str  # why it is not accepted; '' where it is
    max_displacement_a: float | None  # of an atom from where it was relaxed to
    energy_ev_per_atom: float | None  # None: not computed
    higher_ev_per_atom: float | None  # this energy minus that of the relaxed cell
    residual_force_ev_per_a: float | None  # largest norm over atoms
    crystal: Crystal | None  # atoms in the order of the relaxed cell
    magmoms_mu_b: tuple[float, ...] | None = None
    force_calls: Count = 0  # of all groups tried
    cpu_s: float = 0.0
