"""Structures that step together: the engine under `hullward.tools.relax.stream`.

All arrays have the structures along their first axis, padded to the largest one. The state keeps
the last valid numbers apart from the current variables, so a structure that a guard stops still
has them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.potential import (
    BatchEvaluation,
    BatchPotential,
    ClashError,
    CrystalBatch,
    DeviceLostError,
    IsolatedAtomError,
    TooManyNeighboursError,
    UnsupportedElementError,
)
from hullward.tools.records import Flaw, Protocol, Reason
from hullward.tools.relax.optimizers import make_optimizer
from hullward.tools.relax.state import (
    EARLY_STEPS,
    BatchState,
    Finished,
    Guards,
    PausedRelaxation,
    RelaxationJob,
)
from hullward.tools.relax.trust_region import MOST_ATOMS
from hullward.tools.relax.variables import CellVariables, largest_row

MOST_MATRIX_ENTRIES = 2_000_000  # of a batch's Hessians, nine numbers each
LEAST_VOLUME_A3, MOST_VOLUME_A3 = 1e-3, 1e12  # of a cell; beyond, arithmetic loses its digits
STALL_STEPS = 60  # without a drop in energy of this much, or in the residual by a tenth
STALL_ENERGY_EV_PER_ATOM = 1e-5


class BatchRelaxer:
    """Steps a batch of structures; takes new ones while there is room, returns those that end."""

    def __init__(self, potential: BatchPotential, protocol: Protocol, guards: Guards) -> None:
        self._potential, self._protocol, self._guards = potential, protocol, guards
        # without steps no optimizer moves anything, and FIRE keeps no matrix
        self._optimizer_name = protocol.optimizer if protocol.max_steps else "fire"
        self._capacity = potential.work_at_once
        self._jobs: list[RelaxationJob] = []
        self._state = BatchState.at_start(CrystalBatch.of([]))
        self._variables = CellVariables(CrystalBatch.of([]))
        self._optimizer = make_optimizer(self._optimizer_name, self._variables)

    def __len__(self) -> int:
        return len(self._jobs)

    def refusal(self, crystal: Crystal) -> Flaw | None:
        """What makes a crystal impossible to relax, by its size alone."""
        with np.errstate(all="ignore"):
            volume = crystal.volume_a3
        if not volume < MOST_VOLUME_A3:
            return Flaw(reason=Reason.VOLUME_TOO_LARGE, detail=f"{volume:.3g} Å3")
        if not volume > LEAST_VOLUME_A3:
            return Flaw(reason=Reason.VOLUME_TOO_SMALL, detail=f"{volume:.3g} Å3")
        if self._optimizer_name == "fire" or crystal.n_atoms <= MOST_ATOMS:
            return None
        why = (
            f"{crystal.n_atoms} atoms; BFGS keeps a matrix as wide as three times that and takes "
            f"at most {MOST_ATOMS}: use the optimizer 'fire'"
        )
        return Flaw(reason=Reason.TOO_LARGE, detail=why)

    def new_structure(
        self, candidate_id: str, start: Crystal, rattled: Crystal, pause: bool
    ) -> PausedRelaxation:
        """A structure ready to be added; its first step begins from `rattled`."""
        batch = CrystalBatch.of([rattled])
        variables = CellVariables(batch)
        return PausedRelaxation(
            RelaxationJob(candidate_id, start, float(self._potential.work(batch)[0]), pause=pause),
            BatchState.at_start(batch),
            variables,
            make_optimizer(self._optimizer_name, variables),
        )

    def add(self, one: PausedRelaxation, at_once: int | None) -> bool:
        """Add a structure to the batch; False if the batch is full for now."""
        if at_once is not None and len(self) >= at_once:
            return False
        taken = sum(j.work for j in self._jobs)
        if at_once is None and self._jobs and taken + one.job.work > self._capacity:
            return False
        rows = max(self._variables.values.shape[1], one.variables.values.shape[1])
        if self._jobs and (len(self) + 1) * rows**2 > MOST_MATRIX_ENTRIES:
            return False  # all are padded to the largest
        self._jobs.append(one.job)
        self._state = self._state.join(one.state)
        self._variables.join(one.variables)
        self._optimizer.join(one.optimizer)
        return True

    def step(self, started: float) -> list[Finished | PausedRelaxation]:
        """Evaluate all structures and move those that continue; return those that end or pause.

        Those that pause have been moved already. `started` is the process time from which the CPU
        seconds of this step count.
        """
        state, counts = self._state, self._variables.counts
        deformations = self._variables.deformations()
        batch = CrystalBatch(
            cells_a=self._variables.cells(deformations),
            frac_coords=self._variables.frac_coords(),
            numbers=state.numbers,
            counts=counts,
        )
        good = self._check_geometry(batch)
        results = self._evaluate(batch, np.flatnonzero(good))
        state.force_calls += good
        self._record_failures(results)
        good &= self._check_results(results)
        self._store(batch, results, good)
        forces = self._variables.forces(
            deformations, state.forces * good[:, None, None], state.stress * good[:, None, None]
        )
        residual = largest_row(forces)
        state.converged = good & (residual < self._protocol.fmax_ev_per_a)
        # what is recorded are the forces and the stress themselves, not their transforms
        plain = np.maximum(largest_row(state.forces), largest_row(self._stress_forces(batch)))
        state.converged &= plain < self._protocol.fmax_ev_per_a
        continuing = good & ~state.converged & (state.steps < self._protocol.max_steps)
        continuing &= ~self._stalled(residual, continuing)
        if continuing.all():
            self._move(forces)
            self._count_cpu(started)
            return self._remove_pausing()
        ended = np.flatnonzero(~continuing)
        self._count_cpu(started)
        leaving: list[Finished | PausedRelaxation] = [
            Finished(self._jobs[r], int(counts[r]), self._state.keep(np.array([r]))) for r in ended
        ]
        started = time.process_time()
        self._keep(continuing)
        if len(self):
            self._move(forces[continuing])
            self._count_cpu(started)
        return leaving + self._remove_pausing()

    def _stress_forces(self, batch: CrystalBatch) -> np.ndarray:
        """(b, 3, 3) eV/Å: the stress as forces on the cell, per atom, as `fmax` limits them."""
        volumes = np.abs(np.linalg.det(batch.cells_a)) / batch.counts
        stress = self._state.stress
        return np.asarray(volumes[:, None, None] * (stress + stress.swapaxes(1, 2)) / 2)

    def _remove_pausing(self) -> list[Finished | PausedRelaxation]:
        """Take those that are due to pause out of the batch."""
        due = np.array([job.pause for job in self._jobs], dtype=bool)
        due &= self._state.steps >= EARLY_STEPS
        leaving: list[Finished | PausedRelaxation] = []
        for row in np.flatnonzero(due).tolist():
            job, n = self._jobs[row], int(self._variables.counts[row])
            job.pause = False
            state, variables = self._state.pick(row, n), self._variables.pick(row, n)
            leaving.append(PausedRelaxation(job, state, variables, self._optimizer.pick(row, n)))
        if leaving:
            self._keep(~due)
        return leaving

    def _stalled(self, residual: np.ndarray, continuing: np.ndarray) -> np.ndarray:
        """(b,) True without progress for STALL_STEPS. Never for plain FIRE, which follows ASE's."""
        state = self._state
        better = state.energy < state.best_energy - STALL_ENERGY_EV_PER_ATOM
        better |= residual < 0.9 * state.best_residual
        state.best_energy = np.fmin(state.energy, state.best_energy)
        state.best_residual = np.fmin(residual, state.best_residual)
        state.progress = np.where(better, state.steps, state.progress)
        stalled: np.ndarray = continuing & (state.steps - state.progress >= STALL_STEPS)
        if self._protocol.optimizer == "fire":
            stalled[:] = False
        since = state.progress
        self._fail(stalled, Reason.STALLED, lambda row: f"no progress since step {since[row]}")
        return stalled

    def _fail(self, rows: np.ndarray, reason: Reason, why: Callable[[int], str]) -> None:
        """Give the jobs where `rows`, (b,) of bool, is True their reason and step."""
        for row in map(int, np.flatnonzero(rows)):
            self._jobs[row].fail(reason, f"{why(row)}, step {self._state.steps[row]}")

    def _move(self, forces: np.ndarray) -> None:
        energies = self._state.energy * self._variables.counts
        self._variables.values = self._optimizer.step(self._variables.values, forces, energies)
        self._state.steps += 1

    def _keep(self, mask: np.ndarray) -> None:
        self._jobs = [job for job, stays in zip(self._jobs, mask, strict=True) if stays]
        self._state = self._state.keep(mask)
        self._variables.keep(mask)
        self._optimizer.keep(mask)

    def _count_cpu(self, started: float) -> None:
        share = self._variables.counts / self._variables.counts.sum()
        self._state.cpu_s += share * (time.process_time() - started)

    def _evaluate(self, batch: CrystalBatch, rows: np.ndarray) -> BatchEvaluation:
        """Evaluate some rows; on an exception in halves, so that it ends only its own structure."""
        b, n = batch.numbers.shape
        results = BatchEvaluation.empty(b, n)
        waiting = self._portions(rows)
        while waiting:
            rows = waiting.pop()
            try:
                part = self._potential.evaluate_batch(batch.pick(rows), self._guards.min_distance_a)
            except DeviceLostError:
                raise  # this process cannot evaluate anything any more
            except (MemoryError, RuntimeError, ValueError, ArithmeticError, LookupError) as error:
                if len(rows) == 1:
                    results.failures[int(rows[0])] = error
                    continue
                if isinstance(error, MemoryError):
                    taken = sum(self._jobs[r].work for r in rows)
                    self._capacity = min(self._capacity, taken / 2)
                waiting += np.array_split(rows, 2)
                continue
            results.fill(rows, part)
        return results

    def _portions(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows in one batch, or in several after memory ran out."""
        if not len(rows):
            return []
        if self._capacity >= self._potential.work_at_once:
            return [rows]
        work = np.cumsum([self._jobs[r].work for r in rows])
        cuts = np.flatnonzero(np.diff((work - 1e-9) // self._capacity)) + 1
        return list(np.split(rows, cuts))

    def _check_geometry(self, batch: CrystalBatch) -> np.ndarray:
        """(b,) whether the structures may be evaluated; the other jobs get the reason."""
        finite = np.isfinite(batch.cells_a).all((1, 2)) & np.isfinite(batch.frac_coords).all((1, 2))
        self._fail(~finite, Reason.NON_FINITE, lambda row: "cell or positions not finite")
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            ratio = np.abs(np.linalg.det(batch.cells_a)) / self._state.start_volume
            exploded = finite & (ratio > self._guards.max_volume_ratio)
            collapsed = finite & ~exploded & ~(ratio >= self._guards.min_volume_ratio)
        for rows, reason in ((exploded, Reason.EXPLODED), (collapsed, Reason.COLLAPSED)):
            self._fail(rows, reason, lambda row: f"volume {ratio[row]:.2f} times the start")
        good: np.ndarray = finite & ~exploded & ~collapsed
        return good

    def _record_failures(self, results: BatchEvaluation) -> None:
        """Give each structure that could not be evaluated its reason."""
        for row, error in results.failures.items():
            reason = next(
                (r for kind, r in _REASONS if isinstance(error, kind)), Reason.POTENTIAL_ERROR
            )
            if reason == Reason.CLASH:
                self._state.force_calls[row] -= 1  # found before anything was computed
            name = "" if reason != Reason.POTENTIAL_ERROR else f"{type(error).__name__}: "
            text = f"{error}" or "out of memory"
            self._jobs[row].fail(reason, f"{name}{text}, step {self._state.steps[row]}")

    def _check_results(self, results: BatchEvaluation) -> np.ndarray:
        """(b,) whether the results are valid; the other jobs get the reason."""
        unfailed = np.array([job.failure is None for job in self._jobs])
        finite = (
            np.isfinite(results.energies_ev_per_atom)
            & np.isfinite(results.forces_ev_per_a).all((1, 2))
            & np.isfinite(results.stresses_ev_per_a3).all((1, 2))
        )
        broken = unfailed & ~finite
        self._fail(broken, Reason.NON_FINITE, lambda row: "energy, forces or stress not finite")
        drop = self._state.first_energy - results.energies_ev_per_atom
        deep = unfailed & finite & (drop > self._guards.max_energy_drop_ev_per_atom)
        self._fail(deep, Reason.COLLAPSED, lambda row: f"energy fell by {drop[row]:.1f} eV/atom")
        good: np.ndarray = unfailed & finite & ~deep
        return good

    def _store(self, batch: CrystalBatch, results: BatchEvaluation, good: np.ndarray) -> None:
        state = self._state
        if good.all():  # no older values are needed
            state.cell, state.coords = batch.cells_a, batch.frac_coords
            state.energy, state.forces = results.energies_ev_per_atom, results.forces_ev_per_a
            state.stress, state.magmoms = results.stresses_ev_per_a3, results.magmoms_mu_b
        else:
            state.cell[good], state.coords[good] = batch.cells_a[good], batch.frac_coords[good]
            state.energy[good] = results.energies_ev_per_atom[good]
            state.forces[good] = results.forces_ev_per_a[good]
            state.stress[good] = results.stresses_ev_per_a3[good]
            state.magmoms[good] = results.magmoms_mu_b[good]
        state.first_energy = np.where(
            np.isnan(state.first_energy), state.energy, state.first_energy
        )
        early = good & (state.steps < EARLY_STEPS)
        state.early_energy = np.where(early, state.energy, state.early_energy)


_REASONS: tuple[tuple[type[Exception], Reason], ...] = (
    (IsolatedAtomError, Reason.ATOM_ISOLATED),
    (ClashError, Reason.CLASH),
    (UnsupportedElementError, Reason.UNSUPPORTED_ELEMENT),
    (TooManyNeighboursError, Reason.TOO_LARGE),
    (MemoryError, Reason.OUT_OF_MEMORY),
)
