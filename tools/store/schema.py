"""The tables and views of a campaign's DuckDB file, laid out in an empty file, and their meaning.

The file is a projection of the journal: one row a record, nothing that the journal does not hold.
Where a proposal stands is stored nowhere; the view `results` derives it. A file of another layout
is not migrated but built again from the journal, which is always right and fast enough.
"""

from __future__ import annotations

import hashlib

import duckdb

from hullward.tools.store.short_list import SHORT_LIST, SHORT_LIST_ORDER
from hullward.tools.store.tables import TABLES
from hullward.tools.store.views import VIEWS

STATEMENTS = (
    "CREATE TABLE schema_version (digest VARCHAR)",
    "CREATE SCHEMA bookkeeping",
    # the last journal line that is in these tables, and its checksum
    "CREATE TABLE bookkeeping.applied (seq BIGINT, checksum VARCHAR)",
    *(table.sql for table in TABLES.values()),
    VIEWS,
)
DIGEST = hashlib.blake2b("\n".join(STATEMENTS).encode(), digest_size=8).hexdigest()


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Lay out an empty file; checkpointed at once, so that no DDL is ever left in a WAL."""
    for statement in STATEMENTS:
        connection.execute(statement)
    connection.execute("INSERT INTO schema_version VALUES (?)", [DIGEST])
    connection.execute("INSERT INTO bookkeeping.applied VALUES (0, '')")
    connection.execute("CHECKPOINT")


def is_current(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the file was laid out by exactly these statements; raises duckdb.Error if by none."""
    rows = connection.execute("SELECT digest FROM schema_version").fetchall()
    return rows == [(DIGEST,)]


# What a row of each view is, and its columns: meaning, and the unit in brackets.
MEANINGS: dict[str, tuple[str, dict[str, str]]] = {
    "results": (
        "one row a proposal, whatever became of it",
        {
            "proposal_id": "name of the proposal",
            "candidate_id": "name of its crystal; empty where it has none that passes the checks",
            "relaxation_id": "name of its relaxation",
            "cycle": "cycle of the campaign, from 0",
            "operator": "how it was proposed",
            "parents": "candidates or known phases that it was made from",
            "state": "where it stands: rejected_parse, rejected_check, duplicate, known, pending, "
            "failed, unconverged, hull_pending or judged",
            "formula": "reduced formula",
            "chemsys": "chemical system, elements in alphabetical order",
            "n_atoms": "atoms in the cell",
            "energy_ev_per_atom": "energy as relaxed [eV/atom]",
            "e_above_reference_ev_per_atom": "height above the hull of the reference [eV/atom]",
            "e_above_union_ev_per_atom": "height above the hull of reference and campaign together "
            "[eV/atom]",
            "label": "stable, metastable, unstable or below_reference",
            "covered": "whether the reference covers the composition",
            "suspicions": "signs that the result is too good or too odd",
            "second_look": "what the second relaxation of a suspect gave",
            "known_before": "known phase that it matches as proposed",
            "duplicate_before": "earlier candidate that it matches as proposed",
            "rediscovered": "known phase that it matches as relaxed",
            "duplicate_after": "lowest candidate of the same relaxed structure, if it is another",
            "duplicate_when_judged": "earlier candidate of the same relaxed structure",
            "standing": "known structure, new structure of a known compound, new composition, or "
            "novelty not judged",
            "qualifier": "of the standing: ordering, distortion or lanthanide swap of a known "
            "phase, with its id",
            "unmatched": "judged, matches no known phase and no other candidate",
            "novel": "unmatched, and new by its standing",
            "suspect": "too good or too odd, and not confirmed",
            "metastable": "judged, covered, not suspect, stable or metastable",
            "rewarded": "counts as a success of its operator",
            "space_group_loose": "space group as relaxed, within 0.1 Å [number]",
            "space_group_tight": "space group as relaxed, within 0.01 Å [number]",
            "space_group": "the one shown and exported: of the symmetrised cell where it is "
            "accepted, else as relaxed within 0.01 Å [number]",
            "symmetrised_within_a": "tolerance of the accepted symmetrised cell [Å]",
            "symmetrised_higher_ev_per_atom": "energy of the symmetrised cell minus that of the "
            "relaxed one [eV/atom]",
            "not_symmetrised": "why it is not of the higher space group",
            "volume_per_atom_a3": "volume as relaxed, else as proposed [Å³/atom]",
            "converged": "whether forces and stress ended below the limits",
            "reason": "why it was rejected or failed, one word",
            "detail": "the same with numbers",
            "force_calls": "evaluations of forces that it cost",
            "cpu_s": "CPU time that it cost [s]",
            "e_above_second_reference_ev_per_atom": "height over the second reference [eV/atom]",
            "second_label": "label over the second reference",
            "second_rediscovered": "known phase of the second reference that it matches",
            "second_minus_first_ev_per_atom": "second height minus first [eV/atom]",
            "references_disagree": "whether the two heights differ by more than the margin",
            "novelty_kind": "what it is compared with what is known, one word",
            "novelty_match": "the phase or candidate compared with",
            "novelty": "the same as a phrase",
            "disorder": "why its order may be an artefact",
            "phonons": "result of the phonon check",
            "lowest_phonon_thz": "lowest frequency, negative if imaginary [THz]",
            "phonons_by": "potential of the phonon check",
            "suspect_because": "the suspicions as sentences",
            "formula_seen": "whether its formula was in the proposing model's training data",
            "parent_seen": "whether a parent was in the proposing model's training data",
            "training": "the same as a phrase",
            "p_below_50mev": "probability that DFT finds it within 50 meV/atom of the hull",
            "p_below_50mev_low": "lower end of its 95 % interval",
            "p_below_50mev_high": "upper end of its 95 % interval",
            "p_below_100mev": "probability that DFT finds it within 100 meV/atom of the hull",
            "p_below_100mev_low": "lower end of its 95 % interval",
            "p_below_100mev_high": "upper end of its 95 % interval",
            "calibrator_id": "the calibrator that gave them",
            "probability_note": "why there is no probability",
            "disputed": "whether another potential disagrees; empty where none was asked",
            "second_energy_by": "second potential whose energy the probability uses",
            "second_energy_higher_ev_per_atom": "that energy minus this one [eV/atom]",
            "bare_namesakes": "known phases of this formula without a stored structure",
            "source": "the user's own name of a screened structure: its file, or its row",
            "family_id": "family: one formula on one lattice, whatever its ordering",
            "family_size": "judged structures of the family",
            "represents_family": "whether it stands for its family on the short list",
        },
    ),
    "states": (
        "one row a proposal: its state alone",
        {"proposal_id": "name of the proposal", "state": "as in results"},
    ),
    "counts": ("one row: how many proposals reached each stage", {}),
    "funnel": (
        "one row a stage",
        {
            "stage": "name of the stage",
            "count": "proposals that reached it",
            "rate": "the same, divided by all proposals",
        },
    ),
    "operators": (
        "one row an operator and cycle",
        {
            "operator": "how proposals were made",
            "cycle": "cycle of the campaign, from 0",
            "proposed": "proposals",
            "judged": "of these, judged",
            "novel_metastable": "of these, novel and metastable",
            "new_families": "families that it was first to find",
            "force_calls": "evaluations of forces that they cost",
        },
    ),
    "asked": (
        "one row a request to a language model",
        {
            "request_id": "name of the request",
            "cycle": "cycle of the campaign, from 0",
            "position": "place in its cycle",
            "purpose": "what it was asked for",
            "backend": "kind of model",
            "model": "model that was asked",
            "answered_by": "model that answered, by its own name",
            "state": "answered, failed or waiting",
            "answers": "texts that came",
            "prompt_tokens": "tokens read",
            "completion_tokens": "tokens written",
            "failure": "why it failed, one word",
            "detail": "the same in words",
            "memories": "earlier results in the prompt",
            "memories_left_out": "earlier results for which there was no room",
            "left_out": "parameters that the server refused",
        },
    ),
}

# Questions to begin with, by what they ask.
QUESTIONS = {
    "the short list": "SELECT formula, candidate_id, e_above_union_ev_per_atom, standing, "
    "qualifier, novelty "
    f"FROM results WHERE {SHORT_LIST} ORDER BY {SHORT_LIST_ORDER}",
    "why proposals were rejected or failed": "SELECT state, reason, count(*) AS n FROM results "
    "WHERE reason IS NOT NULL GROUP BY ALL ORDER BY n DESC",
    "what each operator brought, and its cost": "SELECT operator, sum(proposed) AS proposed, "
    "sum(novel_metastable) AS novel_metastable, sum(force_calls) AS force_calls FROM operators "
    "GROUP BY operator ORDER BY operator",
    "the lowest candidate of each system": "SELECT chemsys, arg_min(formula, "
    "e_above_union_ev_per_atom) AS formula, min(e_above_union_ev_per_atom) AS "
    "e_above_union_ev_per_atom FROM results WHERE covered AND NOT suspect GROUP BY chemsys "
    "ORDER BY 3",
    "what is suspect, and why": "SELECT formula, candidate_id, suspect_because FROM results "
    "WHERE suspect",
}
