"""Relax crystals, several at a time, each watched at every step.

A structure that goes wrong ends with a reason in its own record: never with an exception, and
never with a consequence for the others.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from pydantic import Field

from hullward.models.crystal import Crystal
from hullward.models.potential import (
    Evaluation,
    IsolatedAtomError,
    Potential,
    PotentialCard,
    UnsupportedElementError,
)
from hullward.tools.optimise import Fire, Walk, largest_row
from hullward.tools.records import Protocol, Reason, Record, Relaxation

GPA_PER_EV_PER_A3 = 160.21766208


class Guards(Record):
    """Where a relaxation is stopped because its numbers mean nothing any more."""

    min_volume_ratio: float = Field(default=0.5, gt=0)  # to the start: collapsed below
    max_volume_ratio: float = Field(default=2.0, gt=1)  # exploded above
    min_distance_a: float = Field(default=0.5, ge=0)  # atoms closer than this clash
    max_energy_drop_ev_per_atom: float = Field(default=20.0, gt=0)  # an abyss, not a minimum


@dataclass
class _Course:
    """What has happened to one structure; `here` and `last` are the last good ones."""

    candidate_id: str
    start: Crystal
    here: Crystal
    first: Evaluation | None = None
    last: Evaluation | None = None
    steps: int = 0
    force_calls: int = 0
    cpu_s: float = 0.0
    converged: bool = False
    failure: Reason | None = None
    detail: str = ""

    def fail(self, reason: Reason, detail: str) -> None:
        self.failure, self.detail = reason, detail


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
    jobs: Iterable[tuple[str, Crystal]],
    potential: Potential,
    protocol: Protocol,
    guards: Guards | None = None,
    at_once: int = 1,
) -> Iterator[Relaxation]:
    """Relax (candidate id, crystal) pairs, `at_once` of them stepping together, as they finish.

    Convergence is ASE's: the largest row norm of the (3 + n, 3) forces, in eV/Å, cell rows
    divided by the number of atoms. Out of steps means `converged` False and no failure. CPU
    seconds are shared among the structures of a step by their atoms.
    """
    guards = guards or Guards()
    waiting = iter(jobs)
    walk, optimiser, courses = Walk([]), Fire(), list[_Course]()
    while True:
        started = time.process_time()
        new = [_enter(*job, protocol) for job in islice(waiting, at_once - len(courses))]
        if new:
            joined = Walk([course.here for course in new])
            walk.join(joined)
            optimiser.join(joined.variables)
            courses += new
        if not courses:
            return
        forces = _evaluate(walk, courses, potential, protocol, guards)
        going = np.array([c.failure is None and not c.converged for c in courses])
        going &= np.array([c.steps < protocol.max_steps for c in courses])
        _share_cpu(courses, time.process_time() - started)
        for course, goes_on in zip(courses, going, strict=True):
            if not goes_on:
                yield _record(course, potential.card, protocol)
        started = time.process_time()
        courses = [c for c, goes_on in zip(courses, going, strict=True) if goes_on]
        walk.keep(going)
        optimiser.keep(going)
        walk.variables = walk.variables + optimiser.step(forces[going])
        for course in courses:
            course.steps += 1
        _share_cpu(courses, time.process_time() - started)


def never_ran(
    candidate_id: str,
    crystal: Crystal,
    potential_name: str,
    protocol: Protocol,
    reason: Reason,
    detail: str,
) -> Relaxation:
    """The record of a relaxation that left nothing but the reason it ended."""
    from hullward.models.registry import potential_card

    course = _Course(candidate_id, crystal, crystal)
    course.fail(reason, detail)
    return _record(course, potential_card(potential_name), protocol)


def rattled(crystal: Crystal, size_a: float, seed_text: str) -> Crystal:
    """Every coordinate displaced by a normal deviate of `size_a`, seeded by a text."""
    if size_a == 0:
        return crystal
    seed = int.from_bytes(hashlib.blake2b(seed_text.encode(), digest_size=8).digest())
    shift = np.random.default_rng(seed).normal(scale=size_a, size=(crystal.n_atoms, 3))
    moved = np.array(crystal.frac_coords) + shift @ np.linalg.inv(np.array(crystal.lattice))
    return Crystal.from_arrays(crystal.lattice, crystal.species, moved)


def space_group(crystal: Crystal, symprec_a: float) -> int | None:
    """International number at a distance tolerance in Å; None where none can be found."""
    import moyopy
    from ase.data import atomic_numbers

    heights = crystal.volume_a3 / np.linalg.norm(_face_areas(np.array(crystal.lattice)), axis=1)
    if heights.min() < 0.5 or heights.max() > 500:
        return None  # the search would take for ever in a cell this flat or this long
    cell = moyopy.Cell(
        basis=[list(v) for v in crystal.lattice],
        positions=[list(v) for v in crystal.frac_coords],
        numbers=[atomic_numbers[symbol] for symbol in crystal.species],
    )
    try:
        return int(moyopy.MoyoDataset(cell, symprec=symprec_a).number)
    except ValueError:
        return None


def _enter(candidate_id: str, crystal: Crystal, protocol: Protocol) -> _Course:
    return _Course(candidate_id, crystal, rattled(crystal, protocol.rattle_a, candidate_id))


def _evaluate(
    walk: Walk, courses: list[_Course], potential: Potential, protocol: Protocol, guards: Guards
) -> np.ndarray:
    """The forces on the variables where every structure stands now; updates the courses.

    A structure that a guard stops gets its failure, and zeros for forces.
    """
    deformations = walk.deformations()
    cells, coords = walk.cells(deformations), walk.frac_coords()
    asked: list[tuple[int, Crystal]] = []
    for row, course in enumerate(courses):
        if _geometry_holds(course, cells[row], coords[row, : walk.counts[row]], guards):
            moved = Crystal.from_arrays(
                cells[row], course.start.species, coords[row, : walk.counts[row]]
            )
            asked.append((row, moved))
    atom_forces = np.zeros_like(coords)
    stresses = np.zeros_like(cells)
    answers = potential.evaluate([crystal for _, crystal in asked])
    for (row, crystal), answer in zip(asked, answers, strict=True):
        course = courses[row]
        course.force_calls += 1
        if _answer_holds(course, answer, guards):
            assert isinstance(answer, Evaluation)
            course.here, course.last = crystal, answer
            course.first = course.first or answer
            atom_forces[row, : crystal.n_atoms] = answer.forces_ev_per_a
            stresses[row] = answer.stress_ev_per_a3
    forces = walk.forces(deformations, atom_forces, stresses)
    for course, residual in zip(courses, largest_row(forces), strict=True):
        course.converged = course.failure is None and bool(residual < protocol.fmax_ev_per_a)
    return forces


def _geometry_holds(course: _Course, cell: np.ndarray, coords: np.ndarray, guards: Guards) -> bool:
    """Whether a structure may be evaluated; if not, its course says why."""
    if not (np.isfinite(cell).all() and np.isfinite(coords).all()):
        course.fail(Reason.NON_FINITE, f"cell or positions not finite after step {course.steps}")
        return False
    volume = float(abs(np.linalg.det(cell)))
    ratio = volume / course.start.volume_a3 if course.start.volume_a3 > 0 else 0.0
    if ratio > guards.max_volume_ratio:
        course.fail(Reason.EXPLODED, f"volume {ratio:.2f} times the start, step {course.steps}")
    elif ratio < guards.min_volume_ratio:
        course.fail(Reason.COLLAPSED, f"volume {ratio:.2f} times the start, step {course.steps}")
    elif (close := _closest_pair(cell, coords, guards.min_distance_a)) is not None:
        course.fail(Reason.CLASH, f"two atoms {close:.2f} Å apart, step {course.steps}")
    return course.failure is None


def _answer_holds(course: _Course, answer: Evaluation | Exception, guards: Guards) -> bool:
    """Whether the potential's answer means something; if not, the course says why."""
    step = f"step {course.steps}"
    if isinstance(answer, IsolatedAtomError):
        course.fail(Reason.ATOM_ISOLATED, f"{answer}, {step}")
    elif isinstance(answer, MemoryError):
        course.fail(Reason.OUT_OF_MEMORY, f"{answer or 'out of memory'}, {step}")
    elif isinstance(answer, UnsupportedElementError):
        course.fail(Reason.UNSUPPORTED_ELEMENT, str(answer))
    elif isinstance(answer, Exception):
        course.fail(Reason.POTENTIAL_ERROR, f"{type(answer).__name__}: {answer}, {step}")
    elif not (
        np.isfinite(answer.energy_ev_per_atom)
        and np.isfinite(answer.forces_ev_per_a).all()
        and np.isfinite(answer.stress_ev_per_a3).all()
    ):
        course.fail(Reason.NON_FINITE, f"energy, forces or stress not finite, {step}")
    elif course.first is not None:
        drop = course.first.energy_ev_per_atom - answer.energy_ev_per_atom
        if drop > guards.max_energy_drop_ev_per_atom:
            course.fail(Reason.COLLAPSED, f"energy fell by {drop:.1f} eV/atom, {step}")
    return course.failure is None


def _closest_pair(cell: np.ndarray, coords: np.ndarray, limit_a: float) -> float | None:
    """The shortest distance between atoms, images included, if it is below the limit."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    if limit_a == 0:
        return None
    positions = np.ascontiguousarray(coords @ cell)
    centre, other, image, distance = find_points_in_spheres(
        positions, positions, limit_a, np.ones(3, dtype=np.int64), np.ascontiguousarray(cell), 1e-8
    )
    real = (centre != other) | (np.abs(image).sum(axis=1) > 0)
    return float(distance[real].min()) if real.any() else None


def _share_cpu(courses: list[_Course], seconds: float) -> None:
    atoms = sum(course.start.n_atoms for course in courses)
    for course in courses:
        course.cpu_s += seconds * course.start.n_atoms / atoms


def _record(course: _Course, card: PotentialCard, protocol: Protocol) -> Relaxation:
    started = time.process_time()
    last, first = course.last, course.first
    end = Crystal.from_arrays(
        course.here.lattice, course.here.species, np.mod(np.array(course.here.frac_coords), 1.0)
    )
    relaxed = last is not None
    groups = (space_group(end, 0.1), space_group(end, 0.01)) if relaxed else (None, None)
    magmoms = last.magmoms_mu_b if last is not None else None
    return Relaxation(
        relaxation_id=Relaxation.make_id(course.candidate_id, card.weights_sha256, protocol),
        candidate_id=course.candidate_id,
        potential=card.name,
        potential_sha256=card.weights_sha256,
        energy_scheme=card.energy_scheme,
        protocol=protocol,
        failure=course.failure,
        detail=course.detail,
        converged=course.converged,
        energy_ev_per_atom=last.energy_ev_per_atom if last else None,
        initial_energy_ev_per_atom=first.energy_ev_per_atom if first else None,
        residual_force_ev_per_a=_largest_force(last) if last else None,
        residual_stress_gpa=_largest_stress_gpa(last) if last else None,
        steps=course.steps,
        force_calls=course.force_calls,
        crystal=end,
        volume_per_atom_a3=end.volume_per_atom_a3,
        volume_ratio=end.volume_a3 / course.start.volume_a3 if course.start.volume_a3 else None,
        space_group_loose=groups[0],
        space_group_tight=groups[1],
        magmoms_mu_b=None if magmoms is None else tuple(float(m) for m in magmoms),
        cpu_s=course.cpu_s + time.process_time() - started,
    )


def _largest_force(evaluation: Evaluation) -> float:
    return float(np.linalg.norm(evaluation.forces_ev_per_a, axis=1).max())


def _largest_stress_gpa(evaluation: Evaluation) -> float:
    stress = evaluation.stress_ev_per_a3
    return float(np.abs(stress + stress.T).max() / 2) * GPA_PER_EV_PER_A3


def _face_areas(lattice: np.ndarray) -> np.ndarray:
    """(3, 3) the normals of the cell's faces, as long as the faces are large, Å²."""
    return np.cross(lattice[[1, 2, 0]], lattice[[2, 0, 1]])
