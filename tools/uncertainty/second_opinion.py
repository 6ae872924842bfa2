"""Second opinions: decomposition energies of candidates by another potential.

Each potential is compared with itself alone. The candidate and the phases it would decompose into
are relaxed by the second potential under the same protocol; the difference of the two potentials'
decomposition energies is what they disagree about.

A suspect that never converged gets an opinion too: the second potential relaxes it from the
structure that was proposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from hullward.models.crystal import Crystal
from hullward.models.potential import PotentialCard, potential_card
from hullward.tools.crystal import StructureLibrary
from hullward.tools.hull import HullDistance, Reference
from hullward.tools.records import Candidate, Protocol, Relaxation, SecondOpinion
from hullward.tools.relax import Executor
from hullward.tools.screening import UNFINISHED


@dataclass(kw_only=True)
class SecondPotential:
    """A second potential, its budget, and what it has relaxed so far."""

    potential: str
    protocol: Protocol
    reference: Reference
    margin_ev_per_atom: float
    max_force_calls: int
    executor: Executor = field(default_factory=partial(Executor, workers=0))
    stopping: Callable[[], bool] = lambda: False
    spent: int = 0  # force calls
    _done: dict[str, Relaxation] = field(default_factory=dict)  # by content id

    @property
    def card(self) -> PotentialCard:
        return potential_card(self.potential)

    @property
    def exhausted(self) -> bool:
        return self.spent >= self.max_force_calls or self.stopping()

    def ask(self, pairs: Sequence[tuple[Candidate, Relaxation]]) -> list[SecondOpinion]:
        """One opinion a candidate, in order; each relaxation is the first potential's, converged.

        The second potential goes on from where the first one ended.
        """
        found = []
        for _, relaxation in pairs:
            assert relaxation.crystal is not None  # a converged relaxation has one
            found.append(self._ask(relaxation.crystal, relaxation, relaxation))
        return found

    def ask_unconverged(
        self, candidate: Candidate, relaxation: Relaxation, again: Relaxation | None
    ) -> SecondOpinion:
        """An opinion on what the first potential could not converge, from the same start.

        again: its second relaxation, from a rattle; compared with where that one converged.
        """
        settled = again if again is not None and again.converged else None
        return self._ask(candidate.crystal, relaxation, settled)

    def _ask(self, start: Crystal, named: Relaxation, settled: Relaxation | None) -> SecondOpinion:
        before = self.spent
        distance, phases, why = self._competitors(start, settled)
        self._relax([start, *phases.values()])
        return self._opinion(start, named, settled, distance, phases, why, self.spent - before)

    def _competitors(
        self, crystal: Crystal, settled: Relaxation | None
    ) -> tuple[HullDistance | None, dict[str, Crystal], str]:
        """What the candidate would decompose into and its structures, or why they are missing."""
        if self.reference.lacking(frozenset(crystal.species)):
            return None, {}, "the reference has no hull for it"
        energy = 0.0 if settled is None else settled.energy_ev_per_atom
        assert energy is not None  # a converged relaxation has one
        # What it decomposes into depends on the composition alone.
        hull = self.reference.hull(crystal.chemsys)
        distance = hull.distance(crystal.amounts, energy)
        known = {p.phase_id: p.crystal for p in self.reference.phases(crystal.chemsys)}
        structures = {p.phase_id: known.get(p.phase_id) for p in distance.decomposition}
        phases = {i: c for i, c in structures.items() if c is not None}
        if len(phases) < len(structures):
            return distance, {}, "the reference has no structures of what it decomposes into"
        return distance, phases, ""

    def _relax(self, crystals: Sequence[Crystal]) -> None:
        """Relax what is new, until the budget is spent."""

        def jobs() -> Iterator[tuple[str, Crystal]]:
            for crystal in {c.content_id: c for c in crystals}.values():
                if crystal.content_id not in self._done and not self.exhausted:
                    yield crystal.content_id, crystal

        for done in self.executor.relax(jobs(), self.potential, self.protocol, self.stopping):
            self._done[done.candidate_id] = done
            self.spent += done.force_calls

    def _opinion(
        self,
        start: Crystal,
        named: Relaxation,
        settled: Relaxation | None,
        distance: HullDistance | None,
        phases: dict[str, Crystal],
        why: str,
        force_calls: int,
    ) -> SecondOpinion:
        name = self.card.name
        second = self._done.get(start.content_id)
        problem = _problem("the candidate", second, name)
        volume = same = rms = first_ev = second_ev = None
        first = None if settled is None else settled.crystal
        if not problem and second is not None and second.crystal is not None and first is not None:
            volume = second.crystal.volume_a3 / first.volume_a3
            match = StructureLibrary([("first", first)]).match(second.crystal)
            same, rms = match is not None, match.rms_a if match else None
        if distance is not None and phases and not problem:
            assert second is not None
            second_ev = second.energy_ev_per_atom
            assert second_ev is not None
            for product in distance.decomposition:
                phase = self._done.get(phases[product.phase_id].content_id)
                problem = _problem(f"{product.formula} ({product.phase_id})", phase, name)
                if problem:
                    second_ev = None
                    break
                assert phase is not None
                assert phase.energy_ev_per_atom is not None
                second_ev -= product.fraction * phase.energy_ev_per_atom
            first_ev = None if settled is None else distance.e_above_hull_ev_per_atom
        if settled is None:
            unsettled = f"{named.potential} did not converge: nothing to compare with"
            problem = f"{unsettled}; {problem}" if problem else unsettled
        gap = None if first_ev is None or second_ev is None else second_ev - first_ev
        return SecondOpinion(
            relaxation_id=named.relaxation_id,
            reference_id=self.reference.reference_id,
            reference_version=self.reference.version,
            potential=name,
            potential_sha256=self.card.weights_sha256,
            kind="decomposition" if phases else "geometry",
            first_ev_per_atom=first_ev,
            second_ev_per_atom=second_ev,
            difference_ev_per_atom=gap,
            margin_ev_per_atom=self.margin_ev_per_atom,
            disputed=_disputed(gap, same, self.margin_ev_per_atom, geometry=not phases),
            volume_ratio=volume,
            same_structure=same,
            rms_a=rms,
            failure="; ".join(text for text in (problem, why) if text),
            force_calls=force_calls,
        )


def _problem(what: str, done: Relaxation | None, potential: str) -> str:
    """Why a relaxation by the second potential cannot be used; '' where it can."""
    if done is None:
        return f"the budget of force calls ended, or the run was stopped, before {what}"
    if done.converged:
        return ""
    if done.failure in UNFINISHED:
        return f"{what} did not converge with {potential}"
    assert done.failure is not None
    return f"{what}: {done.failure.value}: {done.detail}"


def _disputed(
    gap: float | None, same: bool | None, margin: float, *, geometry: bool
) -> bool | None:
    """Whether the potentials disagree; None where there is nothing to compare."""
    if geometry:
        return None if same is None else not same
    return None if gap is None else abs(gap) > margin


def ask_second_potential(
    second: SecondPotential, ranked: Iterable[tuple[Candidate, Relaxation]], top: int
) -> list[SecondOpinion]:
    """Opinions on a ranked list until `top` of it are undisputed, or budget or list is spent."""
    opinions: list[SecondOpinion] = []
    for pair in ranked:
        if sum(not o.disputed for o in opinions) >= top or second.exhausted:
            break
        opinions += second.ask([pair])
    return opinions
