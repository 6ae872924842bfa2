"""What another network reads where the first one left a structure: one energy, no relaxation.

Networks that learnt from the same data err alike at what they have seen and differ at what they
have not, so the difference says more of how far DFT will lie off than anything in the first one's
own answer (tests/benchmarks/RESULTS.md). Both energies must be on one scale; those before the
Materials Project's corrections are corrected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from hullward.models.errors import InputError
from hullward.models.potential import UNCORRECTED, PotentialCard, potential_card
from hullward.tools.hull import MP2020, correction_ev_per_atom
from hullward.tools.records import Protocol, Relaxation, SecondEnergy
from hullward.tools.relax import relax_cached

SECOND = "sevennet-l3i5"  # whom the shipped calibrator listens to
WHERE_IT_STANDS = Protocol(max_steps=0)
READING_STATE = (
    "read_higher_ev_per_atom",  # second minus first
    "read_log_force",  # of the largest force that the second one finds
)
FEW = 60  # read here: workers would need longer to start
CLIP_EV, LEAST_FORCE_EV_PER_A = 0.5, 0.01


def read(
    relaxations: Sequence[Relaxation],
    potential: str = SECOND,
    home: Path | None = None,
    workers: int | None = None,
) -> Iterator[SecondEnergy]:
    """A reading of each converged relaxation as it is taken; `failure` says why one has no number.

    home: where readings are shared between campaigns.  workers: as in `relax_many`, for many.
    Raises InputError where the energies of both cannot be brought to one scale, PreflightError
    where the potential is not installed, both at the call.
    """
    second = potential_card(potential)
    for scheme in sorted({r.energy_scheme for r in relaxations}):
        check_scales(scheme, second)
    first = {r.relaxation_id: r for r in relaxations}
    jobs = [(i, r.crystal) for i, r in first.items() if r.crystal is not None]
    if len(jobs) <= FEW:
        workers = 0
    there = relax_cached(jobs, potential, WHERE_IT_STANDS, home, workers) if jobs else iter(())
    gone = [_reading(r, None, second) for r in relaxations if r.crystal is None]
    return chain(gone, (_reading(first[done.candidate_id], done, second) for done in there))


def unread(relaxations: Sequence[Relaxation], potential: str, why: str) -> list[SecondEnergy]:
    """Readings that were not taken, each saying why."""
    return [
        SecondEnergy(
            relaxation_id=r.relaxation_id, potential=potential, potential_sha256="", failure=why
        )
        for r in relaxations
    ]


def check_scales(first_scheme: str, second: PotentialCard) -> None:
    """Raises InputError unless the second's energies can be brought to the first's scheme."""
    if second.energy_scheme == first_scheme:
        return
    if (first_scheme, second.energy_scheme) != (MP2020, UNCORRECTED):
        raise InputError(
            f"energies of {second.name} ({second.energy_scheme}) cannot be brought to the scale "
            f"{first_scheme!r}; {SECOND} can, to {MP2020!r}"
        )


def _reading(first: Relaxation, there: Relaxation | None, second: PotentialCard) -> SecondEnergy:
    energy = force = correction = higher = None
    failure = "the first potential has no structure of it" if there is None else there.detail
    if there is not None and there.energy_ev_per_atom is not None and first.crystal is not None:
        energy, force = there.energy_ev_per_atom, there.residual_force_ev_per_a
        correction = 0.0
        if second.energy_scheme != first.energy_scheme:
            try:
                correction = correction_ev_per_atom(first.crystal)
            except ValueError as error:
                correction, failure = None, str(error)
        if correction is not None and first.energy_ev_per_atom is not None:
            higher = energy + correction - first.energy_ev_per_atom
    return SecondEnergy(
        relaxation_id=first.relaxation_id,
        potential=second.name,
        potential_sha256=second.weights_sha256,
        energy_ev_per_atom=energy,
        correction_ev_per_atom=correction,
        higher_ev_per_atom=higher,
        largest_force_ev_per_a=force,
        cpu_s=0.0 if there is None else there.cpu_s,
        failure="" if higher is not None else failure or "it gave no energy",
    )


def reading_features(reading: SecondEnergy) -> dict[str, float]:
    """The numbers of READING_STATE. Raises ValueError for a reading without them."""
    higher, force = reading.higher_ev_per_atom, reading.largest_force_ev_per_a
    if higher is None or force is None:
        raise ValueError(f"{reading.relaxation_id} has no reading: {reading.failure}")
    return {
        "read_higher_ev_per_atom": min(max(higher, -CLIP_EV), CLIP_EV),
        "read_log_force": math.log(force + LEAST_FORCE_EV_PER_A),
    }
