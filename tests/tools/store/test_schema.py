"""The tables that users query: a change of a column or type is seen here first."""

import re

import duckdb
import pytest

from hullward.tools.store import TABLES, schema

COLUMNS = {
    "bookkeeping.applied": """
        seq BIGINT, checksum VARCHAR
    """,
    "answers": """
        request_id VARCHAR KEY, index INTEGER KEY, text VARCHAR, model VARCHAR, finish_reason
        VARCHAR, prompt_tokens BIGINT, completion_tokens BIGINT, fault VARCHAR
    """,
    "asked": """
        request_id VARCHAR, cycle INTEGER, position INTEGER, purpose VARCHAR, backend VARCHAR, model
        VARCHAR, answered_by VARCHAR, state VARCHAR, answers BIGINT, prompt_tokens BIGINT,
        completion_tokens BIGINT, failure VARCHAR, detail VARCHAR, memories INTEGER,
        memories_left_out INTEGER, left_out VARCHAR[]
    """,
    "bases": """
        campaign_id VARCHAR KEY, potential VARCHAR, potential_sha256 VARCHAR, energy_scheme VARCHAR,
        protocol VARCHAR, reference_spec VARCHAR, reference_id VARCHAR, reference_version VARCHAR,
        reference_kind VARCHAR, reference_statement VARCHAR, metastable_ev_per_atom DOUBLE,
        protocol_id VARCHAR
    """,
    "budget_raises": """
        campaign_id VARCHAR KEY, number INTEGER KEY, budget VARCHAR
    """,
    "calibrations": """
        calibrator_id VARCHAR KEY, name VARCHAR, potential VARCHAR, statement VARCHAR, rows BIGINT,
        reading VARCHAR, reading_sha256 VARCHAR, checks VARCHAR
    """,
    "campaigns": """
        campaign_id VARCHAR KEY, kind VARCHAR, name VARCHAR, seed HUGEINT, settings VARCHAR,
        versions VARCHAR
    """,
    "candidates": """
        proposal_id VARCHAR, candidate_id VARCHAR KEY, crystal VARCHAR, formula VARCHAR, chemsys
        VARCHAR, n_atoms INTEGER, volume_per_atom_a3 DOUBLE, min_distance_a DOUBLE, space_group
        INTEGER, charge_balanced BOOLEAN, charge_note VARCHAR
    """,
    "cycles": """
        campaign_id VARCHAR KEY, cycle INTEGER KEY, proposed BIGINT, judged BIGINT, force_calls
        BIGINT
    """,
    "explanations": """
        candidate_id VARCHAR KEY, moment VARCHAR KEY, kind VARCHAR, match_id VARCHAR, match_formula
        VARCHAR, exchanged VARCHAR[], inverse BOOLEAN, rms_a DOUBLE, against VARCHAR, against_id
        VARCHAR, words VARCHAR, disorder VARCHAR, bare_namesakes BIGINT, standing VARCHAR
    """,
    "counts": """
        proposed BIGINT, parsed BIGINT, valid BIGINT, unique BIGINT, relaxed BIGINT, metastable
        BIGINT, stable BIGINT, novel_metastable BIGINT, novel_stable BIGINT, novel_families
        BIGINT, rediscovered BIGINT, below_reference BIGINT, suspect BIGINT,
        states MAP(VARCHAR, UBIGINT)
    """,
    "families": """
        relaxation_id VARCHAR KEY, candidate_id VARCHAR, family_id VARCHAR, joined VARCHAR, link
        VARCHAR, kin VARCHAR, shared VARCHAR[], known_kin VARCHAR, known_shared VARCHAR[]
    """,
    "funnel": """
        stage VARCHAR, count BIGINT, rate DOUBLE
    """,
    "labels": """
        proposal_id VARCHAR KEY, moment VARCHAR KEY, kind VARCHAR KEY, match_id VARCHAR, rms_a
        DOUBLE
    """,
    "operators": """
        operator VARCHAR, cycle INTEGER, proposed BIGINT, judged BIGINT, novel_metastable BIGINT,
        new_families BIGINT, force_calls BIGINT
    """,
    "opinions": """
        relaxation_id VARCHAR KEY, reference_id VARCHAR KEY, reference_version VARCHAR KEY,
        potential VARCHAR, potential_sha256 VARCHAR KEY, kind VARCHAR, first_ev_per_atom DOUBLE,
        second_ev_per_atom DOUBLE, difference_ev_per_atom DOUBLE, margin_ev_per_atom DOUBLE,
        disputed BOOLEAN, volume_ratio DOUBLE, same_structure BOOLEAN, rms_a DOUBLE, failure
        VARCHAR, force_calls BIGINT
    """,
    "phonon_checks": """
        candidate_id VARCHAR KEY, relaxation_id VARCHAR, potential VARCHAR, potential_sha256 VARCHAR
        KEY, result VARCHAR, detail VARCHAR, supercell INTEGER[], n_atoms INTEGER, q_points VARCHAR,
        soft VARCHAR, lowest_thz DOUBLE, noise_thz DOUBLE, force_calls BIGINT, cpu_s DOUBLE
    """,
    "plans": """
        plan_id VARCHAR KEY, campaign_id VARCHAR, cycle INTEGER, quotas VARCHAR, parents VARCHAR[],
        formulas VARCHAR[], outcomes VARCHAR, results_up_to_cycle INTEGER, reasons VARCHAR[],
        made_by VARCHAR, brief VARCHAR, space_groups INTEGER[], dropped VARCHAR,
        formulas_ranked BIGINT, formulas_digest VARCHAR, formula_reasons VARCHAR
    """,
    "probabilities": """
        relaxation_id VARCHAR KEY, reference_id VARCHAR KEY, reference_version VARCHAR KEY,
        calibrator_id VARCHAR, p_below_50mev DOUBLE, p_below_50mev_low DOUBLE, p_below_50mev_high
        DOUBLE, p_below_100mev DOUBLE, p_below_100mev_low DOUBLE, p_below_100mev_high DOUBLE, reason
        VARCHAR
    """,
    "proposals": """
        proposal_id VARCHAR KEY, request_id VARCHAR, campaign_id VARCHAR, cycle INTEGER, index
        BIGINT, operator VARCHAR, plan_id VARCHAR, parents VARCHAR[], evidence_ids VARCHAR[], model
        VARCHAR, prompt VARCHAR, sampling VARCHAR, seed HUGEINT, raw VARCHAR, format VARCHAR, source
        VARCHAR, target_formula VARCHAR, prompt_tokens BIGINT, completion_tokens BIGINT,
        content_id VARCHAR, candidate_id VARCHAR, force_calls BIGINT, cpu_s DOUBLE
    """,
    "rejections": """
        proposal_id VARCHAR KEY, stage VARCHAR, reason VARCHAR, detail VARCHAR
    """,
    "relaxations": """
        relaxation_id VARCHAR KEY, candidate_id VARCHAR, potential VARCHAR, potential_sha256
        VARCHAR, energy_scheme VARCHAR, protocol VARCHAR, failure VARCHAR, detail VARCHAR, converged
        BOOLEAN, energy_ev_per_atom DOUBLE, initial_energy_ev_per_atom DOUBLE,
        residual_force_ev_per_a DOUBLE, residual_stress_gpa DOUBLE, steps INTEGER, force_calls
        BIGINT, cpu_s DOUBLE, crystal VARCHAR, volume_per_atom_a3 DOUBLE, volume_ratio DOUBLE,
        space_group_loose INTEGER, space_group_tight INTEGER, magmoms_mu_b DOUBLE[],
        early_energy_ev_per_atom DOUBLE, protocol_id VARCHAR
    """,
    "request_failures": """
        request_id VARCHAR KEY, kind VARCHAR, message VARCHAR, retry BOOLEAN
    """,
    "requests": """
        request_id VARCHAR KEY, campaign_id VARCHAR, cycle INTEGER, position INTEGER, purpose
        VARCHAR, backend VARCHAR, model VARCHAR, system VARCHAR, prompt VARCHAR, form VARCHAR,
        sampling VARCHAR, seed HUGEINT, constraint VARCHAR, plan_id VARCHAR, parents VARCHAR[],
        target_formula VARCHAR, text_form VARCHAR, wish VARCHAR, memories INTEGER, memories_left_out
        INTEGER
    """,
    "responses": """
        request_id VARCHAR KEY, exchange INTEGER KEY, path VARCHAR, model VARCHAR, status INTEGER
        KEY, body VARCHAR, prompt_tokens BIGINT, completion_tokens BIGINT, answered_by VARCHAR,
        left_out VARCHAR[]
    """,
    "results": """
        proposal_id VARCHAR, candidate_id VARCHAR, relaxation_id VARCHAR, cycle INTEGER, operator
        VARCHAR, parents VARCHAR[], state VARCHAR, formula VARCHAR, chemsys VARCHAR, n_atoms
        INTEGER, energy_ev_per_atom DOUBLE, e_above_reference_ev_per_atom DOUBLE,
        e_above_union_ev_per_atom DOUBLE, label VARCHAR, covered BOOLEAN, suspicions VARCHAR[],
        second_look VARCHAR, known_before VARCHAR, duplicate_before VARCHAR, rediscovered VARCHAR,
        duplicate_after VARCHAR, unmatched BOOLEAN, standing VARCHAR, novel BOOLEAN, suspect
        BOOLEAN, metastable BOOLEAN, duplicate_when_judged VARCHAR, space_group_loose INTEGER,
        space_group_tight INTEGER, space_group INTEGER, symmetrised_within_a DOUBLE,
        symmetrised_higher_ev_per_atom DOUBLE, not_symmetrised VARCHAR, volume_per_atom_a3 DOUBLE,
        converged BOOLEAN, reason VARCHAR, detail VARCHAR, force_calls BIGINT, cpu_s DOUBLE,
        e_above_second_reference_ev_per_atom DOUBLE, second_label VARCHAR, second_rediscovered
        VARCHAR, second_minus_first_ev_per_atom DOUBLE, references_disagree BOOLEAN, novelty_kind
        VARCHAR, novelty_match VARCHAR, novelty VARCHAR, disorder VARCHAR, phonons VARCHAR,
        lowest_phonon_thz DOUBLE, phonons_by VARCHAR, suspect_because VARCHAR[], formula_seen
        BOOLEAN, parent_seen BOOLEAN, training VARCHAR, p_below_50mev DOUBLE, p_below_50mev_low
        DOUBLE, p_below_50mev_high DOUBLE, p_below_100mev DOUBLE, p_below_100mev_low DOUBLE,
        p_below_100mev_high DOUBLE, calibrator_id VARCHAR, probability_note VARCHAR, disputed
        BOOLEAN, second_energy_by VARCHAR, second_energy_higher_ev_per_atom DOUBLE, bare_namesakes
        BIGINT, source VARCHAR, family_id VARCHAR, qualifier VARCHAR, rewarded BOOLEAN, family_size
        BIGINT, represents_family BOOLEAN
    """,
    "phase_diagrams": """
        chemsys VARCHAR KEY, reference_id VARCHAR KEY, reference_version VARCHAR KEY,
        element_energies_ev_per_atom VARCHAR, phases VARCHAR, facets VARCHAR
    """,
    "runs": """
        campaign_id VARCHAR KEY, number INTEGER KEY, reason VARCHAR, detail VARCHAR, stage_cpu_s
        VARCHAR
    """,
    "run_times": """
        campaign_id VARCHAR KEY, number INTEGER KEY, wall_s DOUBLE
    """,
    "schema_version": """
        digest VARCHAR
    """,
    "second_energies": """
        relaxation_id VARCHAR KEY, potential VARCHAR, potential_sha256 VARCHAR KEY,
        energy_ev_per_atom DOUBLE, correction_ev_per_atom DOUBLE, higher_ev_per_atom DOUBLE,
        largest_force_ev_per_a DOUBLE, cpu_s DOUBLE, failure VARCHAR
    """,
    "second_references": """
        campaign_id VARCHAR KEY, reference_spec VARCHAR, reference_id VARCHAR, reference_version
        VARCHAR, reference_kind VARCHAR, reference_statement VARCHAR, disagreement_ev_per_atom
        DOUBLE
    """,
    "states": """
        proposal_id VARCHAR, state VARCHAR
    """,
    "suspects": """
        relaxation_id VARCHAR KEY, candidate_id VARCHAR, reference_id VARCHAR KEY, reference_version
        VARCHAR KEY, suspicions VARCHAR[], reasons VARCHAR[], second_look VARCHAR
    """,
    "symmetrised_cells": """
        relaxation_id VARCHAR KEY, candidate_id VARCHAR, tolerance_a DOUBLE, space_group INTEGER,
        accepted BOOLEAN, reason VARCHAR, max_displacement_a DOUBLE, energy_ev_per_atom DOUBLE,
        higher_ev_per_atom DOUBLE, residual_force_ev_per_a DOUBLE, crystal VARCHAR, magmoms_mu_b
        DOUBLE[], force_calls BIGINT, cpu_s DOUBLE
    """,
    "training_overlaps": """
        candidate_id VARCHAR KEY, model VARCHAR, formula_seen BOOLEAN, match_id VARCHAR, match_seen
        BOOLEAN, words VARCHAR
    """,
    "verdicts": """
        relaxation_id VARCHAR KEY, reference_id VARCHAR KEY, reference_version VARCHAR KEY, height
        VARCHAR KEY, e_above_hull_ev_per_atom DOUBLE, decomposition VARCHAR, label VARCHAR, covered
        BOOLEAN, coverage_note VARCHAR, suspicions VARCHAR[], second_look VARCHAR, rediscovered
        VARCHAR, typical_error_ev_per_atom DOUBLE
    """,
}


@pytest.fixture(scope="module")
def laid_out():
    with duckdb.connect() as connection:
        schema.create(connection)
        yield connection


def described(connection, table):
    rows = connection.execute(f"DESCRIBE {table}").fetchall()
    return [f"{name} {kind}" + " KEY" * (key == "PRI") for name, kind, _, key, *_ in rows]


@pytest.mark.parametrize("table", COLUMNS)
def test_columns_and_their_types(laid_out, table):
    assert described(laid_out, table) == re.split(
        r", (?![^(]*\))", " ".join(COLUMNS[table].split())
    )


def test_there_are_no_other_tables(laid_out):
    found = laid_out.execute("SELECT table_schema, table_name FROM information_schema.tables")
    names = {f"{space}.{name}".removeprefix("main.") for space, name in found.fetchall()}
    assert names == set(COLUMNS)
    assert {table.name for table in TABLES.values()} < names


def test_another_layout_has_another_digest(laid_out):
    assert schema.is_current(laid_out)
    laid_out.execute("UPDATE schema_version SET digest = 'x'")
    assert not schema.is_current(laid_out)
    laid_out.execute(f"UPDATE schema_version SET digest = '{schema.DIGEST}'")
