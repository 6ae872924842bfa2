"""The tables of a campaign's DuckDB file; `hullward.tools.store.views` derives the rest from them.

The file is a projection of the journal: one row a record, nothing that the journal does not say.
Nested fields are kept as JSON text, tuples of words and numbers as lists. Where a proposal stands
is written nowhere; the view `results` derives it.
"""

from __future__ import annotations

import hashlib

import duckdb

from hullward.tools.store.views import VIEWS

TRUST = (
    """
    CREATE TABLE chances (  -- of DFT's own height, one row a verdict over a reference
        relaxation_id VARCHAR,
        reference_id VARCHAR,
        reference_version VARCHAR,
        calibrator_id VARCHAR,
        p_below_50mev DOUBLE,
        p_below_50mev_low DOUBLE,
        p_below_50mev_high DOUBLE,
        p_below_100mev DOUBLE,
        p_below_100mev_low DOUBLE,
        p_below_100mev_high DOUBLE,
        reason VARCHAR,
        PRIMARY KEY (relaxation_id, reference_id, reference_version)
    );
    CREATE TABLE calibrations (
        calibrator_id VARCHAR PRIMARY KEY,
        name VARCHAR,
        potential VARCHAR,
        statement VARCHAR,
        "rows" BIGINT,
        checks VARCHAR
    );
    """,
    """
    CREATE TABLE opinions (  -- what other potentials say
        relaxation_id VARCHAR,
        reference_id VARCHAR,
        reference_version VARCHAR,
        potential VARCHAR,
        potential_sha256 VARCHAR,
        kind VARCHAR,
        first_ev_per_atom DOUBLE,
        second_ev_per_atom DOUBLE,
        difference_ev_per_atom DOUBLE,
        margin_ev_per_atom DOUBLE,
        disputed BOOLEAN,
        volume_ratio DOUBLE,
        same_structure BOOLEAN,
        rms_a DOUBLE,
        failure VARCHAR,
        force_calls BIGINT,
        PRIMARY KEY (relaxation_id, reference_id, reference_version, potential_sha256)
    );
    """,
    """
    CREATE TABLE readings (  -- another potential's energy where the first one left a structure
        relaxation_id VARCHAR,
        potential VARCHAR,
        potential_sha256 VARCHAR,
        energy_ev_per_atom DOUBLE,
        correction_ev_per_atom DOUBLE,
        higher_ev_per_atom DOUBLE,
        largest_force_ev_per_a DOUBLE,
        cpu_s DOUBLE,
        failure VARCHAR,
        PRIMARY KEY (relaxation_id, potential_sha256)
    );
    ALTER TABLE explanations ADD COLUMN bare_namesakes BIGINT;
    ALTER TABLE calibrations ADD COLUMN reading VARCHAR;
    ALTER TABLE calibrations ADD COLUMN reading_sha256 VARCHAR;
    """,
)

# Append only: the n-th entry brings version n-1 to version n. A file of another version is not
# migrated in place but built again from the journal, which is always right and fast enough.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE schema_version (version INTEGER, digest VARCHAR);

    CREATE SCHEMA bookkeeping;
    -- the last journal line that is in these tables, and its checksum
    CREATE TABLE bookkeeping.applied (seq BIGINT, checksum VARCHAR);

    CREATE TABLE campaigns (
        campaign_id VARCHAR PRIMARY KEY,
        kind VARCHAR,
        name VARCHAR,
        seed HUGEINT,
        settings VARCHAR,
        versions VARCHAR
    );
    CREATE TABLE bases (  -- one row: a directory belongs to one campaign, the latest basis wins
        campaign_id VARCHAR PRIMARY KEY,
        potential VARCHAR,
        potential_sha256 VARCHAR,
        energy_scheme VARCHAR,
        protocol_id VARCHAR,
        protocol VARCHAR,
        reference_spec VARCHAR,
        reference_id VARCHAR,
        reference_version VARCHAR,
        reference_kind VARCHAR,
        reference_statement VARCHAR,
        metastable_ev_per_atom DOUBLE
    );
    CREATE TABLE plans (
        plan_id VARCHAR PRIMARY KEY,
        campaign_id VARCHAR,
        cycle INTEGER,
        quotas VARCHAR,
        parents VARCHAR[],
        formulas VARCHAR[],
        outcomes VARCHAR,
        results_up_to_cycle INTEGER,
        reasons VARCHAR[]
    );
    CREATE TABLE proposals (
        proposal_id VARCHAR PRIMARY KEY,
        request_id VARCHAR,
        campaign_id VARCHAR,
        cycle INTEGER,
        "index" BIGINT,
        operator VARCHAR,
        plan_id VARCHAR,
        parents VARCHAR[],
        evidence_ids VARCHAR[],
        model VARCHAR,
        prompt VARCHAR,
        sampling VARCHAR,
        seed HUGEINT,
        raw VARCHAR,
        format VARCHAR,
        source VARCHAR,
        target_formula VARCHAR,
        prompt_tokens BIGINT,
        completion_tokens BIGINT,
        candidate_id VARCHAR,  -- NULL until it became a candidate
        force_calls BIGINT,    -- NULL until its candidate was relaxed; all relaxations together,
        cpu_s DOUBLE           -- charged to the first proposal of the candidate
    );
    CREATE TABLE rejections (
        proposal_id VARCHAR PRIMARY KEY,
        stage VARCHAR,
        reason VARCHAR,
        detail VARCHAR
    );
    CREATE TABLE candidates (  -- of proposals with the same crystal the first one
        candidate_id VARCHAR PRIMARY KEY,
        proposal_id VARCHAR,
        crystal VARCHAR,
        formula VARCHAR,
        chemsys VARCHAR,
        n_atoms INTEGER,
        volume_per_atom_a3 DOUBLE,
        min_distance_a DOUBLE,
        space_group INTEGER,
        charge_balanced BOOLEAN,
        charge_note VARCHAR
    );
    CREATE TABLE labels (
        proposal_id VARCHAR,
        moment VARCHAR,
        kind VARCHAR,
        match_id VARCHAR,
        rms_a DOUBLE,
        PRIMARY KEY (proposal_id, moment, kind)
    );
    CREATE TABLE relaxations (
        relaxation_id VARCHAR PRIMARY KEY,
        candidate_id VARCHAR,
        potential VARCHAR,
        potential_sha256 VARCHAR,
        energy_scheme VARCHAR,
        protocol_id VARCHAR,
        protocol VARCHAR,
        failure VARCHAR,
        detail VARCHAR,
        converged BOOLEAN,
        energy_ev_per_atom DOUBLE,
        initial_energy_ev_per_atom DOUBLE,
        residual_force_ev_per_a DOUBLE,
        residual_stress_gpa DOUBLE,
        steps INTEGER,
        force_calls BIGINT,
        cpu_s DOUBLE,
        crystal VARCHAR,
        volume_per_atom_a3 DOUBLE,
        volume_ratio DOUBLE,
        space_group_loose INTEGER,
        space_group_tight INTEGER,
        magmoms_mu_b DOUBLE[]
    );
    CREATE TABLE verdicts (
        relaxation_id VARCHAR,
        reference_id VARCHAR,
        reference_version VARCHAR,
        height VARCHAR,
        e_above_hull_ev_per_atom DOUBLE,
        decomposition VARCHAR,
        label VARCHAR,
        covered BOOLEAN,
        coverage_note VARCHAR,
        suspicions VARCHAR[],
        second_look VARCHAR,
        rediscovered VARCHAR,
        typical_error_ev_per_atom DOUBLE,
        PRIMARY KEY (relaxation_id, reference_id, reference_version, height)
    );
    CREATE TABLE cycles (
        campaign_id VARCHAR,
        cycle INTEGER,
        proposed BIGINT,
        judged BIGINT,
        force_calls BIGINT,
        PRIMARY KEY (campaign_id, cycle)
    );
    CREATE TABLE runs (
        campaign_id VARCHAR,
        number INTEGER,
        reason VARCHAR,
        detail VARCHAR,
        stage_cpu_s VARCHAR,
        PRIMARY KEY (campaign_id, number)
    );
    """,
    """
    CREATE TABLE second_references (  -- at most one row: what is shown beside the basis' reference
        campaign_id VARCHAR PRIMARY KEY,
        reference_spec VARCHAR,
        reference_id VARCHAR,
        reference_version VARCHAR,
        reference_kind VARCHAR,
        reference_statement VARCHAR,
        disagreement_ev_per_atom DOUBLE
    );
    """,
    "ALTER TABLE relaxations ADD COLUMN early_energy_ev_per_atom DOUBLE;",
    """
    CREATE TABLE explanations (  -- what a candidate is next to everything known
        candidate_id VARCHAR,
        moment VARCHAR,
        kind VARCHAR,
        match_id VARCHAR,
        match_formula VARCHAR,
        exchanged VARCHAR[],
        inverse BOOLEAN,
        rms_a DOUBLE,
        against VARCHAR,
        against_id VARCHAR,
        words VARCHAR,
        disorder VARCHAR,
        PRIMARY KEY (candidate_id, moment)
    );
    """,
    """
    CREATE TABLE phonon_checks (  -- vibrations of short-listed cells
        candidate_id VARCHAR,
        relaxation_id VARCHAR,
        potential VARCHAR,
        potential_sha256 VARCHAR,
        result VARCHAR,
        detail VARCHAR,
        supercell INTEGER[],
        n_atoms INTEGER,
        q_points VARCHAR,
        soft VARCHAR,
        lowest_thz DOUBLE,
        noise_thz DOUBLE,
        force_calls BIGINT,
        cpu_s DOUBLE,
        PRIMARY KEY (candidate_id, potential_sha256)
    );
    """,
    """
    CREATE TABLE doubts (  -- suspects with why, those that never converged among them
        relaxation_id VARCHAR,
        candidate_id VARCHAR,
        reference_id VARCHAR,
        reference_version VARCHAR,
        suspicions VARCHAR[],
        reasons VARCHAR[],
        second_look VARCHAR,
        PRIMARY KEY (relaxation_id, reference_id, reference_version)
    );
    CREATE TABLE training_overlaps (  -- what the proposing model had learnt from
        candidate_id VARCHAR PRIMARY KEY,
        model VARCHAR,
        formula_seen BOOLEAN,
        match_id VARCHAR,
        match_seen BOOLEAN,
        words VARCHAR
    );
    """,
    """
    CREATE TABLE requests (  -- to language models
        request_id VARCHAR PRIMARY KEY,
        campaign_id VARCHAR,
        cycle INTEGER,
        position INTEGER,
        purpose VARCHAR,
        backend VARCHAR,
        model VARCHAR,
        system VARCHAR,
        prompt VARCHAR,
        form VARCHAR,
        sampling VARCHAR,
        seed HUGEINT,
        "constraint" VARCHAR,
        plan_id VARCHAR,
        parents VARCHAR[],
        target_formula VARCHAR,
        text_form VARCHAR,
        wish VARCHAR,
        memories INTEGER,
        memories_left_out INTEGER
    );
    CREATE TABLE responses (  -- what a server sent back, unread
        request_id VARCHAR,
        exchange INTEGER,
        path VARCHAR,
        model VARCHAR,
        status INTEGER,
        body VARCHAR,
        PRIMARY KEY (request_id, exchange, status)
    );
    CREATE TABLE answers (  -- verbatim
        request_id VARCHAR,
        "index" INTEGER,
        text VARCHAR,
        model VARCHAR,
        finish_reason VARCHAR,
        prompt_tokens BIGINT,
        completion_tokens BIGINT,
        fault VARCHAR,
        PRIMARY KEY (request_id, "index")
    );
    CREATE TABLE request_failures (
        request_id VARCHAR PRIMARY KEY,
        kind VARCHAR,
        message VARCHAR,
        retry BOOLEAN
    );
    ALTER TABLE plans ADD COLUMN made_by VARCHAR;
    ALTER TABLE plans ADD COLUMN brief VARCHAR;
    ALTER TABLE plans ADD COLUMN space_groups INTEGER[];
    ALTER TABLE plans ADD COLUMN dropped VARCHAR;
    """,
    *TRUST,
)

VERSION = len(MIGRATIONS)
DIGEST = hashlib.blake2b("".join((*MIGRATIONS, VIEWS)).encode(), digest_size=8).hexdigest()


def create(connection: duckdb.DuckDBPyConnection) -> None:
    """Lay out an empty file; checkpointed at once, so that no DDL is ever left in a WAL."""
    for statements in (*MIGRATIONS, VIEWS):
        connection.execute(statements)
    connection.execute("INSERT INTO schema_version VALUES (?, ?)", [VERSION, DIGEST])
    connection.execute("INSERT INTO bookkeeping.applied VALUES (0, '')")
    connection.execute("CHECKPOINT")


def is_current(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the file was laid out by exactly these statements; raises duckdb.Error if none."""
    rows = connection.execute("SELECT version, digest FROM schema_version").fetchall()
    return rows == [(VERSION, DIGEST)]


# The last migrations of `hullward.tools.store.schema`.
