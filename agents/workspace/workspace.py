"""One open campaign: settings, store, screening, language models, parents and budget."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hullward.agents.language import ModelEndpoints
from hullward.agents.settings import Campaign, Machine
from hullward.agents.workspace.budget import Spending
from hullward.agents.workspace.publishing import Publisher
from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.hull import Reference, low_structures
from hullward.tools.prototypes import Substitution
from hullward.tools.records import Basis, Proposal, Record
from hullward.tools.reference import load_reference
from hullward.tools.screening import RelaxedSeed, Screen, StructureIndex
from hullward.tools.store import ORDER_BEFORE_OPINIONS, Store, open_snapshot

SPARE_PARENTS = 6
# Formulas whose neighbours are looked up in the index of known compounds: of all systems together,
# and of each at least.
NEIGHBOURS_ASKED, LEAST_NEIGHBOURS_ASKED = 600, 5


@dataclass(kw_only=True)
class Workspace:
    """An open campaign directory; this process is its only writer."""

    campaign: Campaign
    store: Store
    screen: Screen  # another one once the campaign is judged by another reference
    machine: Machine
    spending: Spending
    publisher: Publisher
    endpoints: ModelEndpoints = field(default_factory=ModelEndpoints)  # the models that are asked
    ready: dict[str, list[Record]] = field(default_factory=dict)  # proposals made ahead, by plan

    def close(self) -> None:
        """Give the directory back."""
        self.screen.cells.close()
        self.store.close()

    def proposals(self, ids: Iterable[str]) -> list[Proposal]:
        return self.store.load(Proposal, list(ids))

    def proposed_content(self, content_ids: Collection[str], before_cycle: int) -> set[str]:
        """Which of these are crystals proposed in earlier cycles, whatever became of them."""
        rows = self.store.rows(
            """SELECT coalesce(content_id, candidate_id) AS id FROM proposals
               WHERE cycle < $cycle AND id IN (SELECT unnest($ids::VARCHAR[]))""",
            {"cycle": before_cycle, "ids": list(content_ids)},
        )
        return {row["id"] for row in rows}

    @cached_property
    def formulas(self) -> list[str]:
        """Formulas of every target system that fit a cell, likeliest first."""
        return list(self.reasons)

    @cached_property
    def reasons(self) -> dict[str, str]:
        """Why each formula has its place, in the order of `formulas`."""
        return reasons_of_formulas(self.campaign, self.screen.index)

    def spare_phases(self) -> list[str]:
        """The reference phases nearest its own hull, in the campaign's limits."""
        return list(self._reference_parents)[:SPARE_PARENTS]

    def is_phase(self, parent_id: str) -> bool:
        """Whether a parent is a reference phase."""
        return parent_id in self._reference_parents

    def parent(self, parent_id: str) -> Crystal | None:
        """The structure behind a parent id: a seed, a reference phase or a relaxed candidate."""
        for known in (self.seeds, self._reference_parents):
            if parent_id in known:
                return known[parent_id]
        rows = self.store.rows(
            """SELECT crystal FROM relaxations WHERE candidate_id = $id AND converged
               ORDER BY relaxation_id LIMIT 1""",
            {"id": parent_id},
        )
        return Crystal.model_validate_json(rows[0]["crystal"]) if rows else None

    @cached_property
    def seeds(self) -> dict[str, Crystal]:
        """Short-listed structures of the earlier campaigns named in the file."""
        found: dict[str, Crystal] = {}
        for directory in self.campaign.seeds_from:
            try:
                found |= read_seeds(directory)
            except InputError as error:
                raise InputError(f"seeds_from: {error}") from error
        return found

    @cached_property
    def _reference_parents(self) -> dict[str, Crystal]:
        ranked: list[tuple[float, str, Crystal]] = []
        sources = [self.screen.reference]
        if sources[0].kind == "materials_project":  # perhaps not fetched, or without structures
            sources.append(load_reference("embedded"))
        for system in self.campaign.target_systems:
            found = (_nearest_hull(reference, system) for reference in sources)
            ranked += next(filter(None, found), [])
        ranked.sort(key=lambda row: row[:2])
        return {phase_id: crystal for _, phase_id, crystal in ranked}

    @cached_property
    def substitution(self) -> Substitution:
        """The substitution operator: embedded phases, seeds, and what was fetched as templates.

        Fetched structures serve where the Materials Project is one of the campaign's references.
        """
        embedded = load_reference("embedded")
        everything = "-".join(sorted(embedded.elements))
        most = self.campaign.max_atoms
        references = [self.screen.reference]
        if self.screen.second is not None:
            references.append(self.screen.second.reference)
        fetched = [
            pair
            for reference in references
            if reference.kind == "materials_project"
            for pair in low_structures(reference, most)
        ]
        return Substitution(
            [*embedded.library_entries(everything), *fetched, *self.seeds.items()],
            max_atoms=most,
            oxidation_states=self.campaign.oxidation_states or None,
        )


def _nearest_hull(reference: Reference, system: str) -> list[tuple[float, str, Crystal]]:
    """(height in eV/atom, phase id, structure) of a reference's own phases of one system."""
    if reference.lacking(frozenset(system.split("-"))):
        return []
    hull = reference.hull(system)
    return [
        (hull.distance(p.composition, p.energy_ev_per_atom)[0], p.phase_id, p.crystal)
        for p in reference.phases(system)
        if p.crystal is not None and p.crystal.chemsys == system
    ]


def read_seeds(directory: Path, most: int = SPARE_PARENTS) -> dict[str, Crystal]:
    """The best judged structures of an earlier campaign, by candidate id."""
    rows = _seed_rows(directory, "crystal", most)
    return {candidate_id: Crystal.model_validate_json(text) for candidate_id, text in rows}


def relaxed_seeds(directories: Iterable[Path], basis: Basis) -> dict[str, RelaxedSeed]:
    """Energies and volumes of the seeds that were relaxed as this basis says, by candidate id."""
    given = basis.potential_sha256, basis.protocol.protocol_id
    columns = "potential_sha256, protocol_id, energy_ev_per_atom, volume_per_atom_a3"
    return {
        candidate_id: RelaxedSeed(energy, volume)
        for directory in directories
        for candidate_id, *relaxed_by, energy, volume in _seed_rows(directory, columns)
        if tuple(relaxed_by) == given
    }


def _seed_rows(directory: Path, columns: str, most: int = SPARE_PARENTS) -> list[tuple[Any, ...]]:
    """(candidate id, columns of its relaxation) of the best judged candidates of a campaign."""
    with open_snapshot(directory) as connection:
        return connection.execute(
            f"""SELECT r.candidate_id, x.* EXCLUDE (relaxation_id) FROM results r JOIN
                (SELECT relaxation_id, {columns} FROM relaxations) x USING (relaxation_id)
                WHERE r.state = 'judged' AND NOT r.suspect AND r.duplicate_after IS NULL
                ORDER BY {ORDER_BEFORE_OPINIONS} LIMIT ?""",
            [most],
        ).fetchall()


def reasons_of_formulas(campaign: Campaign, index: StructureIndex | None) -> dict[str, str]:
    """Why each formula of a campaign's systems has its place, likeliest formulas first.

    index: knows which compounds there are.
    """
    from hullward.tools.crystal.stoichiometry import likely_formulas

    asked = max(LEAST_NEIGHBOURS_ASKED, NEIGHBOURS_ASKED // len(campaign.target_systems))
    elements = {s: "the element" for s in campaign.target_systems if "-" not in s}
    found = [
        likely
        for system in campaign.target_systems
        if system not in elements
        for likely in likely_formulas(
            system.split("-"),
            campaign.max_atoms,
            campaign.oxidation_states or None,
            balanced_only=campaign.require_charge_balance,
            known=index.knows if index is not None else None,
            neighbours_asked=asked,
        )
    ]
    found.sort(key=lambda likely: -likely.score)  # stable
    return {likely.formula: likely.reason for likely in found} | elements
