"""Imaginary phonon modes of a relaxed cell: is it at a minimum of its potential?

Finite displacements (phonopy, 10.7566/JPSJ.92.012001) in a supercell give the vibrations at the
wave vectors that fit into it. These are exact whatever the range of the forces; nothing is
interpolated. Cells twice as large along each axis hold the centre of the zone and every boundary
point with halves. Frequencies are in THz, imaginary ones negative.

A potential's forces are not smooth on every scale, so each displacement is made in two sizes, and
a mode counts as imaginary only if it is so for both. The noise is the frequency of the three
acoustic modes at Γ, which should be zero, before the sum rule is imposed; no weaker mode counts.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from hullward.models.crystal import Crystal
from hullward.models.potential import CrystalBatch, Potential, in_batches
from hullward.tools.crystal import find_symmetry
from hullward.tools.records import PhononCheck, Protocol, SoftMode
from hullward.tools.relax.stream import relax_one

if TYPE_CHECKING:
    from phonopy import Phonopy

AMPLITUDES_A = (0.03, 0.05)
TIGHT = Protocol(fmax_ev_per_a=0.01, max_steps=500)
MAX_ATOMS = 256  # of a supercell
LEAST_SOFT_THZ = 0.2  # weaker imaginary modes count as zero
SYMPREC_A = 0.01

Supercell = tuple[int, int, int]


class NotCheckedError(Exception):
    """A cell cannot be checked; the message gives the reason."""


def check_phonons(
    candidate_id: str,
    relaxation_id: str,
    crystal: Crystal,
    potential: Potential,
    *,
    max_atoms: int = MAX_ATOMS,
    force_calls: int | None = None,
) -> PhononCheck:
    """Look for imaginary modes of a relaxed crystal; the record says why if it was not checked.

    The cell is first relaxed to 0.01 eV/Å and made exactly symmetric.  force_calls: limit on the
    number of evaluations.
    """
    started = time.process_time()
    spent = [0]
    card = potential.card
    identity: dict[str, Any] = {
        "candidate_id": candidate_id,
        "relaxation_id": relaxation_id,
        "potential": card.name,
        "potential_sha256": card.weights_sha256,
    }
    try:
        cell, supercell = _prepare_cell(crystal, potential, max_atoms, spent)
        points = [np.array(q) for q in product(*([k / n for k in range(n)] for n in supercell))]
        modes, noises = _both_sizes(cell, supercell, points, potential, force_calls, spent)
    except NotCheckedError as error:
        found = dict(_NOT_CHECKED, detail=str(error))
    else:
        found = _summary(points, modes, max(noises))
        found |= {"supercell": supercell, "n_atoms": cell.n_atoms * int(np.prod(supercell))}
    cpu_s = time.process_time() - started
    return PhononCheck(**identity, **found, force_calls=spent[0], cpu_s=cpu_s)


_NOT_CHECKED: dict[str, Any] = {
    "result": "not_checked",
    "supercell": None,
    "n_atoms": None,
    "q_points": (),
    "soft": (),
    "lowest_thz": None,
    "noise_thz": None,
}


def _summary(points: Sequence[np.ndarray], modes: np.ndarray, noise_thz: float) -> dict[str, Any]:
    """Fields of the record: which modes are imaginary for both sizes of displacement.

    modes: (2, q, modes) THz.
    """
    noise = max(LEAST_SOFT_THZ, noise_thz)
    highest, lowest = modes.max(axis=0), modes.min(axis=0)  # the milder of the two, and the other
    soft = [
        SoftMode(
            q=_triple(q),
            modes=int((high < -noise).sum()),
            frequency_thz=round(float(low.min()), 3),
            milder_thz=round(float(high.min()), 3),
        )
        for q, high, low in zip(points, highest, lowest, strict=True)
        if (high < -noise).any()
    ]
    uncertain = not soft and bool((lowest < -noise).any())
    return {
        "result": "imaginary_modes" if soft else "uncertain" if uncertain else "no_imaginary_mode",
        "detail": "the two sizes of displacement disagree" if uncertain else "",
        "q_points": tuple(_triple(q) for q in points),
        "soft": tuple(sorted(soft, key=lambda mode: mode.frequency_thz)),
        "lowest_thz": round(float(lowest.min()), 3) if np.isfinite(lowest.min()) else None,
        "noise_thz": round(noise_thz, 3),
    }


def _triple(q: np.ndarray) -> tuple[float, float, float]:
    return float(q[0]), float(q[1]), float(q[2])


def choose_supercell(crystal: Crystal, max_atoms: int = MAX_ATOMS) -> Supercell | None:
    """Double as many axes as the limit allows, short ones first; None for too large a cell.

    >>> salt = Crystal.from_parameters((3, 4, 9), (90, 90, 90), ["Na", "Cl"], [[0] * 3, [0.5] * 3])
    >>> choose_supercell(salt, 16), choose_supercell(salt, 8), choose_supercell(salt, 1)
    ((2, 2, 2), (2, 2, 1), None)
    """
    lengths, _ = crystal.parameters
    fitting = [
        (int(np.prod(n)), min(k * length for k, length in zip(n, lengths, strict=True)), n)
        for n in product((1, 2), repeat=3)
        if crystal.n_atoms * int(np.prod(n)) <= max_atoms
    ]
    if not fitting:
        return None
    a, b, c = max(fitting)[2]
    return a, b, c


def _prepare_cell(
    crystal: Crystal, potential: Potential, max_atoms: int, spent: list[int]
) -> tuple[Crystal, Supercell]:
    """The symmetric primitive cell, relaxed tightly, and its supercell."""
    cell = _symmetric(crystal)
    if choose_supercell(cell, max_atoms) is None:
        raise NotCheckedError(f"{cell.n_atoms} atoms in the primitive cell, limit {max_atoms}")
    done = relax_one("", cell, potential, TIGHT)
    spent[0] += done.force_calls
    if not done.converged or done.crystal is None:
        why = f"{done.failure}: {done.detail}" if done.failure else f"{done.steps} steps"
        raise NotCheckedError(
            f"not at a minimum: forces did not fall below {TIGHT.fmax_ev_per_a} eV/Å ({why})"
        )
    cell = _symmetric(done.crystal)
    supercell = choose_supercell(cell, max_atoms)
    if supercell is None:
        raise NotCheckedError(f"{cell.n_atoms} atoms in the primitive cell, limit {max_atoms}")
    return cell, supercell


def _symmetric(crystal: Crystal) -> Crystal:
    """The standard primitive cell, exactly symmetric; the crystal itself where none is found."""
    from ase.data import chemical_symbols

    try:
        found = find_symmetry(crystal, SYMPREC_A).prim_std_cell
    except ValueError:
        return crystal
    species = [chemical_symbols[z] for z in found.numbers]
    return Crystal.from_arrays(found.basis, species, found.positions)


def _both_sizes(
    cell: Crystal,
    supercell: Supercell,
    points: Sequence[np.ndarray],
    potential: Potential,
    limit: int | None,
    spent: list[int],
) -> tuple[np.ndarray, list[float]]:
    """(2, q, modes) THz from displacements of each size, and the noise of each, THz."""
    runs = [_displaced(cell, supercell, amplitude) for amplitude in AMPLITUDES_A]
    needed = sum(len(phonons.supercells_with_displacements or ()) for phonons in runs)
    if limit is not None and needed > limit - spent[0]:
        raise NotCheckedError(f"needs {needed} force calls, {max(0, limit - spent[0])} left")
    found = [_modes(phonons, points, potential, spent) for phonons in runs]
    return np.array([modes for modes, _ in found]), [noise for _, noise in found]


def _displaced(cell: Crystal, supercell: Supercell, amplitude_a: float) -> Phonopy:
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    atoms = PhonopyAtoms(
        symbols=list(cell.species),
        cell=np.array(cell.lattice),
        scaled_positions=np.array(cell.frac_coords),
    )
    with warnings.catch_warnings():
        # a supercell of another shape has less symmetry than its cell; phonopy works with that
        warnings.filterwarnings("ignore", "Warning: Point group symmetries", UserWarning)
        phonons = Phonopy(
            atoms,
            supercell_matrix=np.diag(supercell),
            primitive_matrix=np.eye(3),
            symprec=1e-4,
            log_level=0,
        )
    # both signs always: what is cubic in the displacement cancels
    phonons.generate_displacements(distance=amplitude_a, is_plusminus=True, is_diagonal=False)
    return phonons


def _modes(
    phonons: Phonopy, points: Sequence[np.ndarray], potential: Potential, spent: list[int]
) -> tuple[np.ndarray, float]:
    """(q, modes) THz, those of the acoustic modes at Γ infinite, and the noise, THz."""
    crystals = [
        Crystal.from_arrays(s.cell, s.symbols, s.scaled_positions)
        for s in phonons.supercells_with_displacements or ()
        if s is not None
    ]
    phonons.forces = _forces(crystals, potential)
    spent[0] += len(crystals)
    phonons.produce_force_constants(fc_calculator="traditional", show_drift=False)
    raw, vectors = _solve(phonons, [np.zeros(3)])
    noise = np.abs(raw[0][_acoustic(vectors[0], phonons.primitive.masses)]).max()
    phonons.symmetrize_force_constants(show_drift=False)
    found, vectors = _solve(phonons, points)
    found[0][_acoustic(vectors[0], phonons.primitive.masses)] = np.inf  # not counted; Γ comes first
    return np.sort(found, axis=1), float(noise)


def _solve(phonons: Phonopy, points: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (q, m) in THz and eigenvectors (q, 3 n, m)."""
    phonons.run_qpoints(np.array(points), with_eigenvectors=True)
    solved = phonons.qpoints
    assert solved is not None
    assert solved.frequencies is not None
    assert solved.eigenvectors is not None
    return np.array(solved.frequencies), np.array(solved.eigenvectors)


def _acoustic(vectors: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Indices of the three modes at Γ that move all atoms alike."""
    weights = np.sqrt(np.asarray(masses) / np.sum(masses))
    shifts = np.kron(weights[:, None], np.eye(3))  # (3 n, 3) translations, mass weighted
    overlap = (np.abs(vectors.conj().T @ shifts) ** 2).sum(1)
    three: np.ndarray = np.argsort(overlap)[-3:]
    return three


def _forces(crystals: Sequence[Crystal], potential: Potential) -> list[np.ndarray]:
    """(n, 3) eV/Å of each crystal, in batches as large as the potential takes."""
    engine = in_batches(potential)
    work = float(engine.work(CrystalBatch.of(crystals[:1]))[0]) if crystals else 1.0
    size = max(1, int(engine.work_at_once // work))
    found: list[np.ndarray] = []
    for start in range(0, len(crystals), size):
        batch = CrystalBatch.of(crystals[start : start + size])
        try:
            results = engine.evaluate_batch(batch)
        except MemoryError as error:
            raise NotCheckedError(f"out of memory for {len(batch.counts)} supercells") from error
        if results.failures:
            why = next(iter(results.failures.values()))
            raise NotCheckedError(f"a displaced cell could not be evaluated: {why}")
        if not np.isfinite(results.forces_ev_per_a).all():
            raise NotCheckedError("forces of a displaced cell are not finite")
        found += list(results.forces_ev_per_a)
    return found
