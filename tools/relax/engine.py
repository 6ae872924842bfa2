"""Structures that step together: the engine under `hullward.tools.relax.stream`.

All arrays carry the structures along their first axis, padded to the largest one. What is good is
kept apart from what is tried, so that a structure a guard stops still has its last good numbers.
"""

from __future__ import annotations

import time

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.potential import (
    BatchEvaluation,
    BatchPotential,
    ClashError,
    CrystalBatch,
    DeviceLostError,
    IsolatedAtomError,
    UnsupportedElementError,
)
from hullward.tools.records import Protocol, Reason
from hullward.tools.relax.optimizers import make_optimiser
from hullward.tools.relax.state import (
    EARLY_STEPS,
    BatchState,
    Finished,
    Guards,
    PausedRelaxation,
    RelaxationJob,
)
from hullward.tools.relax.variables import CellVariables, largest_row

STALL_STEPS = 60  # without falling by this much, or the residual by a tenth
STALL_ENERGY_EV_PER_ATOM = 1e-5


class BatchRelaxer:
    """Admits structures while there is room, steps them all, lets go of those that have ended."""

    def __init__(self, potential: BatchPotential, protocol: Protocol, guards: Guards) -> None:
        self._potential, self._protocol, self._guards = potential, protocol, guards
        self._room = potential.work_at_once
        self._courses: list[RelaxationJob] = []
        self._state = BatchState.before(CrystalBatch.of([]))
        self._walk = CellVariables(CrystalBatch.of([]))
        self._optimiser = make_optimiser(protocol.optimizer, self._walk)

    def __len__(self) -> int:
        return len(self._courses)

    def ready(
        self, candidate_id: str, start: Crystal, here: Crystal, pause: bool
    ) -> PausedRelaxation:
        """A structure about to begin, standing at `here`."""
        batch = CrystalBatch.of([here])
        walk = CellVariables(batch)
        return PausedRelaxation(
            RelaxationJob(candidate_id, start, float(self._potential.work(batch)[0]), pause=pause),
            BatchState.before(batch),
            walk,
            make_optimiser(self._protocol.optimizer, walk),
        )

    def admit(self, one: PausedRelaxation, at_once: int | None) -> bool:
        """Take one more in, unless the room is full; then ask again later."""
        if at_once is not None and len(self) >= at_once:
            return False
        taken = sum(c.work for c in self._courses)
        if at_once is None and self._courses and taken + one.course.work > self._room:
            return False
        self._courses.append(one.course)
        self._state = self._state.join(one.state)
        self._walk.join(one.walk)
        self._optimiser.join(one.optimiser)
        return True

    def step(self, started: float) -> list[Finished | PausedRelaxation]:
        """Evaluate all where they stand and move those that go on; the rest is returned.

        What was to pause is returned too, moved already.

        `started` is the process time from which this step's CPU seconds count.
        """
        state, counts = self._state, self._walk.counts
        deformations = self._walk.deformations()
        batch = CrystalBatch(
            cells_a=self._walk.cells(deformations),
            frac_coords=self._walk.frac_coords(),
            numbers=state.numbers,
            counts=counts,
        )
        good = self._check_geometry(batch)
        answers = self._ask(batch, np.flatnonzero(good))
        state.force_calls += good
        self._blame(answers)
        good &= self._check_answers(answers)
        self._remember(batch, answers, good)
        forces = self._walk.forces(
            deformations, state.forces * good[:, None, None], state.stress * good[:, None, None]
        )
        residual = largest_row(forces)
        state.converged = good & (residual < self._protocol.fmax_ev_per_a)
        going = good & ~state.converged & (state.steps < self._protocol.max_steps)
        going &= ~self._stalled(residual, going)
        if going.all():
            self._move(forces)
            self._count_cpu(started)
            return self._pauses()
        ended = np.flatnonzero(~going)
        self._count_cpu(started)
        left: list[Finished | PausedRelaxation] = [
            Finished(self._courses[r], int(counts[r]), self._state.keep(np.array([r])))
            for r in ended
        ]
        started = time.process_time()
        self._keep(going)
        if len(self):
            self._move(forces[going])
            self._count_cpu(started)
        return left + self._pauses()

    def _pauses(self) -> list[Finished | PausedRelaxation]:
        """Let those go that are to wait for their turn."""
        due = [
            c.pause and s >= EARLY_STEPS
            for c, s in zip(self._courses, self._state.steps, strict=True)
        ]
        if not any(due):
            return []
        left: list[Finished | PausedRelaxation] = []
        for row, course in enumerate(self._courses):
            if due[row]:
                course.pause, n = False, int(self._walk.counts[row])
                state, walk = self._state.pick(row, n), self._walk.pick(row, n)
                left.append(PausedRelaxation(course, state, walk, self._optimiser.pick(row, n)))
        self._keep(~np.array(due))
        return left

    def _stalled(self, residual: np.ndarray, going: np.ndarray) -> np.ndarray:
        """(b,) who has got nowhere for long. FIRE is let go on: it is there to be the peer's."""
        state = self._state
        better = state.energy < state.best_energy - STALL_ENERGY_EV_PER_ATOM
        better |= residual < 0.9 * state.best_residual
        state.best_energy = np.fmin(state.energy, state.best_energy)
        state.best_residual = np.fmin(residual, state.best_residual)
        state.progress = np.where(better, state.steps, state.progress)
        stalled: np.ndarray = going & (state.steps - state.progress >= STALL_STEPS)
        if self._protocol.optimizer == "fire":
            stalled[:] = False
        for row in np.flatnonzero(stalled):
            detail = f"no progress since step {state.progress[row]}, step {state.steps[row]}"
            self._courses[row].fail(Reason.STALLED, detail)
        return stalled

    def _move(self, forces: np.ndarray) -> None:
        energies = self._state.energy * self._walk.counts
        self._walk.variables = self._optimiser.step(self._walk.variables, forces, energies)
        self._state.steps += 1

    def _keep(self, mask: np.ndarray) -> None:
        self._courses = [c for c, stays in zip(self._courses, mask, strict=True) if stays]
        self._state = self._state.keep(mask)
        self._walk.keep(mask)
        self._optimiser.keep(mask)

    def _count_cpu(self, started: float) -> None:
        share = self._walk.counts / self._walk.counts.sum()
        self._state.cpu_s += share * (time.process_time() - started)

    def _ask(self, batch: CrystalBatch, rows: np.ndarray) -> BatchEvaluation:
        """Evaluate some rows; on an exception in halves, so that it ends only who caused it."""
        b, n = batch.numbers.shape
        answers = BatchEvaluation.empty(b, n)
        waiting = self._portions(rows)
        while waiting:
            rows = waiting.pop()
            try:
                part = self._potential.evaluate_batch(batch.pick(rows), self._guards.min_distance_a)
            except DeviceLostError:
                raise  # nothing can be asked of this process any more
            except (MemoryError, RuntimeError, ValueError, ArithmeticError, LookupError) as error:
                if len(rows) == 1:
                    answers.failures[int(rows[0])] = error
                    continue
                if isinstance(error, MemoryError):
                    taken = sum(self._courses[r].work for r in rows)
                    self._room = min(self._room, taken / 2)
                waiting += np.array_split(rows, 2)
                continue
            answers.fill(rows, part)
        return answers

    def _portions(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows in one batch, or in several where memory once ran out for so many."""
        if not len(rows):
            return []
        if self._room >= self._potential.work_at_once:
            return [rows]
        work = np.cumsum([self._courses[r].work for r in rows])
        cuts = np.flatnonzero(np.diff((work - 1e-9) // self._room)) + 1
        return list(np.split(rows, cuts))

    def _check_geometry(self, batch: CrystalBatch) -> np.ndarray:
        """(b,) whether the structures may be evaluated; the courses of the others say why not."""
        steps = self._state.steps
        finite = np.isfinite(batch.cells_a).all((1, 2)) & np.isfinite(batch.frac_coords).all((1, 2))
        for row in np.flatnonzero(~finite):
            detail = f"cell or positions not finite, step {steps[row]}"
            self._courses[row].fail(Reason.NON_FINITE, detail)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            ratio = np.abs(np.linalg.det(batch.cells_a)) / self._state.start_volume
            exploded = finite & (ratio > self._guards.max_volume_ratio)
            collapsed = finite & ~exploded & ~(ratio >= self._guards.min_volume_ratio)
        for rows, reason in ((exploded, Reason.EXPLODED), (collapsed, Reason.COLLAPSED)):
            for row in np.flatnonzero(rows):
                detail = f"volume {ratio[row]:.2f} times the start, step {steps[row]}"
                self._courses[row].fail(reason, detail)
        good: np.ndarray = finite & ~exploded & ~collapsed
        return good

    def _blame(self, answers: BatchEvaluation) -> None:
        """Give the structures that could not be evaluated their reasons."""
        for row, error in answers.failures.items():
            reason = next(
                (r for kind, r in _REASONS if isinstance(error, kind)), Reason.POTENTIAL_ERROR
            )
            if reason == Reason.CLASH:
                self._state.force_calls[row] -= 1  # found before anything was computed
            name = "" if reason != Reason.POTENTIAL_ERROR else f"{type(error).__name__}: "
            text = f"{error}" or "out of memory"
            self._courses[row].fail(reason, f"{name}{text}, step {self._state.steps[row]}")

    def _check_answers(self, answers: BatchEvaluation) -> np.ndarray:
        """(b,) whether the numbers mean something; the courses of the others say why not."""
        steps = self._state.steps
        unfailed = np.array([c.failure is None for c in self._courses])
        finite = (
            np.isfinite(answers.energies_ev_per_atom)
            & np.isfinite(answers.forces_ev_per_a).all((1, 2))
            & np.isfinite(answers.stresses_ev_per_a3).all((1, 2))
        )
        for row in np.flatnonzero(unfailed & ~finite):
            detail = f"energy, forces or stress not finite, step {steps[row]}"
            self._courses[row].fail(Reason.NON_FINITE, detail)
        drop = self._state.first_energy - answers.energies_ev_per_atom
        deep = unfailed & finite & (drop > self._guards.max_energy_drop_ev_per_atom)
        for row in np.flatnonzero(deep):
            detail = f"energy fell by {drop[row]:.1f} eV/atom, step {steps[row]}"
            self._courses[row].fail(Reason.COLLAPSED, detail)
        good: np.ndarray = unfailed & finite & ~deep
        return good

    def _remember(self, batch: CrystalBatch, answers: BatchEvaluation, good: np.ndarray) -> None:
        state = self._state
        if good.all():  # nothing of the past is needed
            state.cell, state.coords = batch.cells_a, batch.frac_coords
            state.energy, state.forces = answers.energies_ev_per_atom, answers.forces_ev_per_a
            state.stress, state.magmoms = answers.stresses_ev_per_a3, answers.magmoms_mu_b
        else:
            state.cell[good], state.coords[good] = batch.cells_a[good], batch.frac_coords[good]
            state.energy[good] = answers.energies_ev_per_atom[good]
            state.forces[good] = answers.forces_ev_per_a[good]
            state.stress[good] = answers.stresses_ev_per_a3[good]
            state.magmoms[good] = answers.magmoms_mu_b[good]
        state.first_energy = np.where(
            np.isnan(state.first_energy), state.energy, state.first_energy
        )
        early = good & (state.steps < EARLY_STEPS)
        state.early_energy = np.where(early, state.energy, state.early_energy)


_REASONS: tuple[tuple[type[Exception], Reason], ...] = (
    (IsolatedAtomError, Reason.ATOM_ISOLATED),
    (ClashError, Reason.CLASH),
    (UnsupportedElementError, Reason.UNSUPPORTED_ELEMENT),
    (MemoryError, Reason.OUT_OF_MEMORY),
)
