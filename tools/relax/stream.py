"""Relax crystals, many at a time, with guards checked at every step.

Structures step together; when one finishes, the next one takes its place. A structure that goes
wrong ends with a reason in its own record: never with an exception, and without any effect on the
others.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.potential import (
    CrystalBatch,
    Potential,
    PotentialCard,
    in_batches,
)
from hullward.tools.crystal import space_group
from hullward.tools.records import Protocol, Reason, Relaxation
from hullward.tools.relax.engine import BatchRelaxer
from hullward.tools.relax.state import BatchState, Finished, Guards, PausedRelaxation, RelaxationJob
from hullward.tools.relax.variables import largest_row
from hullward.tools.relax.waiting import Stopping, StopWatch, never

Job = tuple[str, Crystal] | PausedRelaxation  # a new candidate, or one that has paused

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

    `jobs` may yield None if it has no job at present; the next one is drawn after the next step, or
    at once when no structure is left to step.

    As many step together as the potential's cache or memory holds, or `at_once` if given.
    Converged is ASE's criterion (the largest row norm of the (3 + n, 3) forces, in eV/Å, cell
    rows divided by the number of atoms), and the same for the forces and the stress of the final
    cell, which are recorded. A structure that runs out of steps has `converged` False and no
    failure. The CPU seconds of a step are divided among its structures by their atoms. Raises
    DeviceLostError when the accelerator is gone.
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
    stopping: Stopping = never,
    each_step: Callable[[], None] = lambda: None,
) -> Iterator[Relaxation | PausedRelaxation]:
    """As `relax_stream`, but new structures pause after EARLY_STEPS steps and are yielded.

    Passed in again, here or in another process, a paused one continues as if it had never paused.
    Once `stopping` returns True no more are drawn, and what does not end within seconds is dropped.
    each_step: called after every step of the batch.
    """
    relaxer = BatchRelaxer(in_batches(potential), protocol, guards or Guards())
    waiting = iter(jobs)
    next_in: PausedRelaxation | None = None
    exhausted = False
    stop = StopWatch(stopping)
    while not stop.over:
        exhausted = exhausted or stop.asked
        started = time.process_time()
        while next_in is not None or not exhausted:
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
                elif flaw := relaxer.refusal(job[1]):
                    why = flaw.reason, flaw.detail
                    yield failed_relaxation(*job, potential.card, protocol, *why)
                    continue
                else:
                    start = rattled(job[1], protocol.rattle_a, job[0])
                    next_in = relaxer.new_structure(*job, start, pausing)
            if not relaxer.add(next_in, at_once):
                break
            next_in = None
        if not len(relaxer):
            if exhausted:
                return
            continue
        ended = relaxer.step(started)
        each_step()
        for one in ended:
            if isinstance(one, PausedRelaxation):
                yield one
            else:
                yield relaxation_record(one, potential.card, protocol)


def failed_relaxation(
    candidate_id: str,
    crystal: Crystal,
    card: PotentialCard,
    protocol: Protocol,
    reason: Reason,
    detail: str,
) -> Relaxation:
    """The record of a relaxation that has nothing but a reason why it failed."""
    job = RelaxationJob(candidate_id, crystal, 0.0, reason, detail)
    ended = Finished(job, crystal.n_atoms, BatchState.at_start(CrystalBatch.of([crystal])))
    return relaxation_record(ended, card, protocol)


def rattled(crystal: Crystal, size_a: float, seed_text: str) -> Crystal:
    """The crystal with normal deviates of `size_a` added to all coordinates, seeded by a text."""
    if size_a == 0:
        return crystal
    seed = int.from_bytes(hashlib.blake2b(seed_text.encode(), digest_size=8).digest())
    shift = np.random.default_rng(seed).normal(scale=size_a, size=(crystal.n_atoms, 3))
    moved = np.array(crystal.frac_coords) + shift @ np.linalg.inv(np.array(crystal.lattice))
    return Crystal.from_arrays(crystal.lattice, crystal.species, moved)


def relaxation_record(ended: Finished, card: PotentialCard, protocol: Protocol) -> Relaxation:
    """The record of a structure that has ended."""
    started = time.process_time()
    job, row, n = ended.job, ended.row, ended.n_atoms
    end = Crystal.from_arrays(row.cell[0], job.start.species, np.mod(row.coords[0, :n] + 0.0, 1.0))
    evaluated = bool(np.isfinite(row.energy[0]))
    magmoms = row.magmoms[0, :n]
    with np.errstate(all="ignore"):  # a cell that was refused may overflow
        volume, start_volume = end.volume_a3, job.start.volume_a3
    return Relaxation(
        relaxation_id=Relaxation.make_id(job.candidate_id, card.weights_sha256, protocol),
        candidate_id=job.candidate_id,
        potential=card.name,
        potential_sha256=card.weights_sha256,
        energy_scheme=card.energy_scheme,
        protocol=protocol,
        failure=job.failure,
        detail=job.detail,
        converged=bool(row.converged[0]),
        energy_ev_per_atom=float(row.energy[0]) if evaluated else None,
        initial_energy_ev_per_atom=float(row.first_energy[0]) if evaluated else None,
        residual_force_ev_per_a=float(largest_row(row.forces)[0]) if evaluated else None,
        residual_stress_gpa=_largest_stress_gpa(row.stress[0]) if evaluated else None,
        steps=int(row.steps[0]),
        force_calls=int(row.force_calls[0]),
        crystal=end,
        volume_per_atom_a3=volume / n if np.isfinite(volume) else None,
        volume_ratio=volume / start_volume if 0 < start_volume < np.inf else None,
        space_group_loose=space_group(end, 0.1) if evaluated else None,
        space_group_tight=space_group(end, 0.01) if evaluated else None,
        magmoms_mu_b=tuple(map(float, magmoms)) if np.isfinite(magmoms).all() else None,
        early_energy_ev_per_atom=float(row.early_energy[0]) if evaluated else None,
        cpu_s=float(row.cpu_s[0]) + time.process_time() - started,
    )


def within_limits(done: Relaxation) -> bool:
    """Whether the recorded forces and stress are below the limit of the protocol."""
    force, stress, volume = (
        done.residual_force_ev_per_a,
        done.residual_stress_gpa,
        done.volume_per_atom_a3,
    )
    if force is None or stress is None or volume is None:
        return False
    return max(force, stress * volume / GPA_PER_EV_PER_A3) < done.protocol.fmax_ev_per_a


def _largest_stress_gpa(stress: np.ndarray) -> float:
    return float(np.abs(stress + stress.T).max() / 2) * GPA_PER_EV_PER_A3
