"""Relax crystals, many at a time, each watched at every step.

Structures step together; one that has finished leaves and the next one waiting takes its place.
A structure that goes wrong ends with a reason in its own record: never with an exception, and
never with a consequence for the others.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from typing import cast

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.potential import CrystalBatch, Potential, PotentialCard, in_batches
from hullward.tools.crystal import space_group
from hullward.tools.records import Protocol, Reason, Relaxation
from hullward.tools.relax.engine import BatchRelaxer
from hullward.tools.relax.state import BatchState, Finished, Guards, PausedRelaxation, RelaxationJob

Job = tuple[str, Crystal] | PausedRelaxation  # a candidate about to begin, or one that has paused

GPA_PER_EV_PER_A3 = 160.21766208


def relax_one(
    candidate_id: str,
    crystal: Crystal,
    potential: Potential,
    protocol: Protocol,
    guards: Guards | None = None,
) -> Relaxation:
    """Relax the positions and the cell of one crystal; see `relax_stream`."""
    return next(relax_stream([(candidate_id, crystal)], potential, protocol, guards))


def relax_stream(
    jobs: Iterable[tuple[str, Crystal] | None],
    potential: Potential,
    protocol: Protocol,
    guards: Guards | None = None,
    at_once: int | None = None,
) -> Iterator[Relaxation]:
    """Relax (candidate id, crystal) pairs and yield each as it finishes.

    `jobs` may yield None to say that there is nothing more at present: it is asked again after
    the next step, or at once when no structure is left to step.

    As many step together as the potential's cache or memory holds, or `at_once` if given.
    Convergence is ASE's: the largest row norm of the (3 + n, 3) forces, in eV/Å, cell rows
    divided by the number of atoms. Out of steps means `converged` False and no failure. CPU
    seconds are shared among the structures of a step by their atoms. Raises DeviceLostError when
    the accelerator is gone.
    """
    stream = relax_in_turns(jobs, potential, protocol, guards, at_once, pausing=False)
    return cast(Iterator[Relaxation], stream)  # nothing pauses


def relax_in_turns(
    jobs: Iterable[Job | None],
    potential: Potential,
    protocol: Protocol,
    guards: Guards | None = None,
    at_once: int | None = None,
    pausing: bool = True,
) -> Iterator[Relaxation | PausedRelaxation]:
    """As `relax_stream`, but what begins here pauses after EARLY_STEPS steps and is yielded.

    Handed in again, here or in another process, it goes on as if it had never paused.
    """
    herd = BatchRelaxer(in_batches(potential), protocol, guards or Guards())
    waiting = iter(jobs)
    next_in: PausedRelaxation | None = None
    exhausted = False
    while True:
        started = time.process_time()
        while not exhausted:
            if next_in is None:
                try:
                    job = next(waiting)
                except StopIteration:
                    exhausted = True
                    break
                if job is None:
                    break
                if isinstance(job, PausedRelaxation):
                    next_in = job
                else:
                    start = rattled(job[1], protocol.rattle_a, job[0])
                    next_in = herd.ready(*job, start, pausing)
            if not herd.admit(next_in, at_once):
                break
            next_in = None
        if not len(herd):
            if exhausted:
                return
            continue
        for left in herd.step(started):
            yield (
                left
                if isinstance(left, PausedRelaxation)
                else _record(left, potential.card, protocol)
            )


def failed_relaxation(
    candidate_id: str,
    crystal: Crystal,
    potential_name: str,
    protocol: Protocol,
    reason: Reason,
    detail: str,
) -> Relaxation:
    """The record of a relaxation that left nothing but the reason it ended."""
    from hullward.models.potential import potential_card

    course = RelaxationJob(candidate_id, crystal, 0.0, reason, detail)
    ended = Finished(course, crystal.n_atoms, BatchState.before(CrystalBatch.of([crystal])))
    return _record(ended, potential_card(potential_name), protocol)


def rattled(crystal: Crystal, size_a: float, seed_text: str) -> Crystal:
    """Every coordinate displaced by a normal deviate of `size_a`, seeded by a text."""
    if size_a == 0:
        return crystal
    seed = int.from_bytes(hashlib.blake2b(seed_text.encode(), digest_size=8).digest())
    shift = np.random.default_rng(seed).normal(scale=size_a, size=(crystal.n_atoms, 3))
    moved = np.array(crystal.frac_coords) + shift @ np.linalg.inv(np.array(crystal.lattice))
    return Crystal.from_arrays(crystal.lattice, crystal.species, moved)


def _record(ended: Finished, card: PotentialCard, protocol: Protocol) -> Relaxation:
    started = time.process_time()
    course, row, n = ended.course, ended.row, ended.n_atoms
    end = Crystal.from_arrays(
        row.cell[0], course.start.species, np.mod(row.coords[0, :n] + 0.0, 1.0)
    )
    evaluated = bool(np.isfinite(row.energy[0]))
    magmoms = row.magmoms[0, :n]
    return Relaxation(
        relaxation_id=Relaxation.make_id(course.candidate_id, card.weights_sha256, protocol),
        candidate_id=course.candidate_id,
        potential=card.name,
        potential_sha256=card.weights_sha256,
        energy_scheme=card.energy_scheme,
        protocol=protocol,
        failure=course.failure,
        detail=course.detail,
        converged=bool(row.converged[0]),
        energy_ev_per_atom=float(row.energy[0]) if evaluated else None,
        initial_energy_ev_per_atom=float(row.first_energy[0]) if evaluated else None,
        residual_force_ev_per_a=_largest_norm(row.forces[0]) if evaluated else None,
        residual_stress_gpa=_largest_stress_gpa(row.stress[0]) if evaluated else None,
        steps=int(row.steps[0]),
        force_calls=int(row.force_calls[0]),
        crystal=end,
        volume_per_atom_a3=end.volume_per_atom_a3,
        volume_ratio=end.volume_a3 / course.start.volume_a3 if course.start.volume_a3 else None,
        space_group_loose=space_group(end, 0.1) if evaluated else None,
        space_group_tight=space_group(end, 0.01) if evaluated else None,
        magmoms_mu_b=tuple(map(float, magmoms)) if np.isfinite(magmoms).all() else None,
        early_energy_ev_per_atom=float(row.early_energy[0]) if evaluated else None,
        cpu_s=float(row.cpu_s[0]) + time.process_time() - started,
    )


def _largest_norm(vectors: np.ndarray) -> float:
    return float(np.linalg.norm(vectors, axis=1).max())


def _largest_stress_gpa(stress: np.ndarray) -> float:
    return float(np.abs(stress + stress.T).max() / 2) * GPA_PER_EV_PER_A3
