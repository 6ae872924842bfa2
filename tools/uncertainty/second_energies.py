"""Second energies: a relaxed structure's energy by another potential, without relaxing it again.

Networks that learnt from the same data err alike on what they have seen and differ on what they
have not, so the difference predicts the error against DFT better than anything in the first one's
own answer (tests/benchmarks/RESULTS.md). Both energies must be on one scale; those before the
Materials Project's corrections are corrected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

from hullward.models.errors import InputError
from hullward.models.potential import UNCORRECTED, PotentialCard, potential_card
from hullward.tools.hull import MP2020, correction_ev_per_atom
from hullward.tools.records import Protocol, Relaxation, SecondEnergy
from hullward.tools.relax import Executor

SECOND = "sevennet-l3i5"  # the second potential of the shipped calibrator
NO_STEPS = Protocol(max_steps=0)
SECOND_ENERGY_STATE = (
    "read_higher_ev_per_atom",  # second minus first
    "read_log_force",  # of the largest force by the second
)
EVERY_CORE = Executor()
FEW = 60  # computed in this process: workers would need longer to start
CLIP_EV, LEAST_FORCE_EV_PER_A = 0.5, 0.01


def second_energies_of(
    relaxations: Sequence[Relaxation],
    potential: str = SECOND,
    executor: Executor = EVERY_CORE,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[SecondEnergy]:
    """The second energy of each converged relaxation as it is computed, or its `failure`.

    executor: for more than FEW; those are computed in this process.  stopping: leave out the rest.
    Raises InputError where the energies of both cannot be brought to one scale, PreflightError
    where the potential is not installed, both at the call.
    """
    second = potential_card(potential)
    for scheme in sorted({r.energy_scheme for r in relaxations}):
        check_scales(scheme, second)
    first = {r.relaxation_id: r for r in relaxations}
    jobs = [(i, r.crystal) for i, r in first.items() if r.crystal is not None]
    if len(jobs) <= FEW:
        executor = replace(executor, workers=0)
    there = executor.relax(jobs, potential, NO_STEPS, stopping) if jobs else iter(())
    gone = [_second_energy(r, None, second) for r in relaxations if r.crystal is None]
    return chain(gone, (_second_energy(first[one.candidate_id], one, second) for one in there))


def not_computed(relaxations: Sequence[Relaxation], potential: str, why: str) -> list[SecondEnergy]:
    """Second energies without a number, each with the reason."""
    return [
        SecondEnergy(
            relaxation_id=r.relaxation_id, potential=potential, potential_sha256="", failure=why
        )
        for r in relaxations
    ]


def check_scales(first_scheme: str, second: PotentialCard) -> None:
    """Raise InputError unless the second's energies can be brought to the first's scheme."""
    if second.energy_scheme == first_scheme:
        return
    if (first_scheme, second.energy_scheme) != (MP2020, UNCORRECTED):
        raise InputError(
            f"energies of {second.name} ({second.energy_scheme}) cannot be brought to the scale "
            f"{first_scheme!r}; {SECOND} can, to {MP2020!r}"
        )


def _second_energy(
    first: Relaxation, there: Relaxation | None, second: PotentialCard
) -> SecondEnergy:
    energy = force = correction = higher = None
    failure = "the first potential left no structure" if there is None else there.detail
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


def second_energy_features(second_energy: SecondEnergy) -> dict[str, float]:
    """The numbers of SECOND_ENERGY_STATE. Raises ValueError where they are missing."""
    higher, force = second_energy.higher_ev_per_atom, second_energy.largest_force_ev_per_a
    if higher is None or force is None:
        raise ValueError(
            f"{second_energy.relaxation_id} has no second energy: {second_energy.failure}"
        )
    return {
        "read_higher_ev_per_atom": min(max(higher, -CLIP_EV), CLIP_EV),
        "read_log_force": math.log(force + LEAST_FORCE_EV_PER_A),
    }
