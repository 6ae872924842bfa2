"""Tables of trust: probabilities, the calibrators that said them, second opinions, readings."""

from __future__ import annotations

# The last migrations of `hullward.tools.schema`.
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
