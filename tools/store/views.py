"""The views of a campaign's DuckDB file: the state and results of every proposal, and counts."""

VIEWS = """
-- One row a proposal. Only relaxations by the basis' potential and protocol and verdicts of the
-- basis' reference and version count; second relaxations and earlier bases stay in their tables.
CREATE VIEW results AS
WITH RECURSIVE relaxed AS (
    SELECT r.* FROM relaxations r JOIN bases USING (potential_sha256, protocol_id)
    QUALIFY row_number() OVER (PARTITION BY r.candidate_id ORDER BY r.relaxation_id) = 1
),
current_verdicts AS (
    SELECT v.* FROM verdicts v JOIN bases USING (reference_id, reference_version)
),
heights AS (
    SELECT
        relaxation_id,
        max(e_above_hull_ev_per_atom) FILTER (height = 'reference') AS over_reference,
        max(e_above_hull_ev_per_atom) FILTER (height = 'union') AS over_union,
        max(rediscovered) AS rediscovered,
        bool_or(label IN ('stable', 'metastable')) AS within_threshold
    FROM current_verdicts GROUP BY relaxation_id
),
-- the label is that of the union verdict, or of the reference verdict while that has no height
words AS (
    SELECT relaxation_id, label, covered, suspicions, second_look FROM current_verdicts
    QUALIFY row_number() OVER (
        PARTITION BY relaxation_id
        ORDER BY e_above_hull_ev_per_atom IS NULL, height = 'union' DESC
    ) = 1
),
-- over the second reference, if there is one: shown and compared, never counted
second AS (
    SELECT
        v.relaxation_id, v.e_above_hull_ev_per_atom AS over_second, v.label AS second_label,
        v.rediscovered AS second_rediscovered, s.disagreement_ev_per_atom AS margin
    FROM verdicts v JOIN second_references s USING (reference_id, reference_version)
    WHERE v.height = 'reference'
),
-- that DFT finds the height small, by a calibrator, or why there is no probability
probability AS (
    SELECT c.* EXCLUDE (reference_id, reference_version)
    FROM probabilities c JOIN bases USING (reference_id, reference_version)
),
-- the energy of the relaxed structure by the calibrator's second potential
second_energy AS (
    SELECT
        k.relaxation_id, e.potential AS second_energy_by,
        e.higher_ev_per_atom AS second_energy_higher_ev_per_atom
    FROM probability k
    JOIN calibrations c USING (calibrator_id)
    JOIN second_energies e
        ON e.relaxation_id = k.relaxation_id AND e.potential_sha256 = c.reading_sha256
),
-- by other potentials: one that disputes is enough
opined AS (
    SELECT relaxation_id, coalesce(bool_or(o.disputed), false) AS disputed
    FROM opinions o JOIN bases USING (reference_id, reference_version) GROUP BY relaxation_id
),
matches AS (
    SELECT
        proposal_id,
        max(match_id) FILTER (moment = 'before' AND kind = 'known') AS known_before,
        max(match_id) FILTER (moment = 'before' AND kind = 'duplicate') AS duplicate_before,
        max(match_id) FILTER (moment = 'after' AND kind = 'known') AS known_after,
        max(match_id) FILTER (moment = 'after' AND kind = 'duplicate') AS duplicate_after
    FROM labels GROUP BY proposal_id
),
-- Candidates that a chain of matches connects, each once, by the one to which their labels lead.
twins AS (
    SELECT c.candidate_id, l.match_id AS leads_to
    FROM labels l JOIN candidates c USING (proposal_id)
    WHERE l.moment = 'after' AND l.kind = 'duplicate'
),
chains AS (
    SELECT candidate_id, leads_to, 1 AS steps FROM twins
    UNION ALL
    SELECT l.candidate_id, t.leads_to, l.steps + 1
    FROM chains l JOIN twins t ON t.candidate_id = l.leads_to WHERE l.steps < 100
),
members AS (
    SELECT candidate_id, arg_max(leads_to, steps) AS group_id FROM chains GROUP BY candidate_id
    UNION
    SELECT leads_to, leads_to FROM twins WHERE leads_to NOT IN (SELECT candidate_id FROM twins)
),
-- The lowest in energy represents a group, or what is known if there is such a one among them.
represented AS (
    SELECT
        g.candidate_id, g.group_id,
        first_value(g.candidate_id) OVER (
            PARTITION BY g.group_id
            ORDER BY
                c.candidate_id IS NOT NULL,
                m.known_after IS NULL AND m.known_before IS NULL AND h.rediscovered IS NULL,
                coalesce(len(w.suspicions) > 0 AND w.second_look <> 'confirmed', false),
                r.energy_ev_per_atom NULLS LAST, g.candidate_id <> g.group_id, g.candidate_id
        ) AS represented_by
    FROM members g
    LEFT JOIN candidates c ON c.candidate_id = g.candidate_id
    LEFT JOIN matches m ON m.proposal_id = c.proposal_id
    LEFT JOIN (FROM relaxed WHERE converged) r ON r.candidate_id = g.candidate_id
    LEFT JOIN heights h ON h.relaxation_id = r.relaxation_id
    LEFT JOIN words w ON w.relaxation_id = r.relaxation_id
),
-- as relaxed, or as proposed before that
explained AS (
    SELECT
        candidate_id, kind AS novelty_kind, match_id AS novelty_match, words AS novelty, disorder,
        coalesce(bare_namesakes, 0) AS bare_namesakes, standing,
        CASE WHEN kind = 'lanthanide_swap' THEN match_formula || ' (' || match_id || ')' END
            AS swap_of
    FROM explanations
    QUALIFY row_number() OVER (PARTITION BY candidate_id ORDER BY moment = 'before') = 1
),
suspected AS (
    SELECT d.relaxation_id, d.suspicions, d.reasons, d.second_look
    FROM suspects d JOIN bases USING (reference_id, reference_version)
),
-- by the campaign's own potential if it computed them
vibrations AS (
    SELECT
        p.candidate_id, p.relaxation_id, p.result AS phonons, p.lowest_thz AS lowest_phonon_thz,
        p.potential AS phonons_by
    FROM phonon_checks p LEFT JOIN bases b USING (potential_sha256)
    QUALIFY row_number() OVER (
        PARTITION BY p.candidate_id ORDER BY b.potential IS NULL, p.potential
    ) = 1
),
-- the relaxed cell moved into a higher space group, and whether it is of that group
moved_cells AS (
    SELECT
        relaxation_id,
        CASE WHEN accepted THEN space_group END AS symmetrised_group,
        CASE WHEN accepted THEN tolerance_a END AS symmetrised_within_a,
        higher_ev_per_atom AS symmetrised_higher_ev_per_atom,
        nullif(reason, '') AS not_symmetrised
    FROM symmetrised_cells
),
-- A crystal proposed twice is relaxed and counted once, for its first proposal.
started AS (
    SELECT
        p.*, c.formula, c.chemsys, c.n_atoms, c.volume_per_atom_a3 AS proposed_volume_per_atom_a3,
        m.known_before, m.known_after, m.duplicate_after,
        coalesce(
            m.duplicate_before,
            CASE WHEN c.proposal_id <> p.proposal_id AND m.known_before IS NULL
            THEN c.candidate_id END
        ) AS duplicate_before,
        CASE WHEN c.proposal_id = p.proposal_id AND m.duplicate_before IS NULL
        THEN c.candidate_id END AS own_candidate_id
    FROM proposals p
    LEFT JOIN candidates c USING (candidate_id)
    LEFT JOIN matches m ON m.proposal_id = p.proposal_id
),
placed AS (
    SELECT
        s.*, r.* EXCLUDE (candidate_id, force_calls, cpu_s, detail), r.detail AS relaxation_detail,
        j.stage, j.reason AS rejection_reason, j.detail AS rejection_detail,
        h.over_reference, h.over_union, h.within_threshold,
        nullif(g.represented_by, s.candidate_id) AS represented_by,
        coalesce(h.rediscovered, CASE WHEN r.converged THEN s.known_after END) AS rediscovered,
        w.label, w.covered, coalesce(w.suspicions, d.suspicions) AS suspicions,
        coalesce(w.second_look, d.second_look) AS second_look, d.reasons,
        t.formula_seen, t.match_seen AS parent_seen, t.words AS training,
        o.over_second, o.second_label, o.second_rediscovered, o.margin,
        coalesce(s.duplicate_before, nullif(g.represented_by, s.candidate_id)) AS same_as,
        CASE WHEN same_as IS NULL THEN x.novelty_kind ELSE 'duplicate' END AS novelty_kind,
        coalesce(same_as, x.novelty_match) AS novelty_match,
        coalesce(
            'the same as earlier candidate ' || s.duplicate_before,
            'the same as candidate ' || same_as, x.novelty
        ) AS novelty,
        CASE
            WHEN coalesce(s.known_before, s.known_after, h.rediscovered) IS NOT NULL
            THEN 'known structure' ELSE x.standing
        END AS standing,
        nullif(x.disorder, '') AS disorder, q.phonons, q.lowest_phonon_thz, q.phonons_by,
        k.* EXCLUDE (relaxation_id, reason), nullif(k.reason, '') AS probability_note,
        x.bare_namesakes, x.swap_of, f.known_kin, f.known_shared, f.shared,
        y.disputed, e.second_energy_by, e.second_energy_higher_ev_per_atom,
        -- one that was never compared is a family of its own
        CASE WHEN r.converged THEN coalesce(f.family_id, s.candidate_id) END AS family_id,
        coalesce(f.joined, s.candidate_id) AS joined,
        u.* EXCLUDE (relaxation_id),
        CASE
            WHEN j.stage = 'parse' THEN 'rejected_parse'
            WHEN j.stage = 'check' THEN 'rejected_check'
            WHEN s.duplicate_before IS NOT NULL THEN 'duplicate'
            WHEN s.known_before IS NOT NULL AND r.relaxation_id IS NULL THEN 'known'
            WHEN r.relaxation_id IS NULL THEN 'pending'
            WHEN r.failure <> 'stalled' THEN 'failed'
            WHEN NOT r.converged THEN 'unconverged'
            WHEN h.over_reference IS NULL AND h.over_union IS NULL THEN 'hull_pending'
            ELSE 'judged'
        END AS state
    FROM started s
    LEFT JOIN rejections j ON j.proposal_id = s.proposal_id
    LEFT JOIN relaxed r ON r.candidate_id = s.own_candidate_id
    LEFT JOIN heights h ON h.relaxation_id = r.relaxation_id
    LEFT JOIN words w ON w.relaxation_id = r.relaxation_id
    LEFT JOIN second o ON o.relaxation_id = r.relaxation_id
    LEFT JOIN vibrations q ON q.relaxation_id = r.relaxation_id
    LEFT JOIN suspected d ON d.relaxation_id = r.relaxation_id
    LEFT JOIN training_overlaps t ON t.candidate_id = s.candidate_id
    LEFT JOIN probability k ON k.relaxation_id = r.relaxation_id
    LEFT JOIN opined y ON y.relaxation_id = r.relaxation_id
    LEFT JOIN second_energy e ON e.relaxation_id = r.relaxation_id
    LEFT JOIN represented g ON g.candidate_id = s.own_candidate_id
    -- the members of a group are what its first one was found to be
    LEFT JOIN explained x ON x.candidate_id = coalesce(g.group_id, s.candidate_id)
    LEFT JOIN families f ON f.relaxation_id = r.relaxation_id
    LEFT JOIN moved_cells u ON u.relaxation_id = r.relaxation_id
),
shown AS (
    SELECT
        proposal_id, candidate_id, relaxation_id, cycle, operator, parents, state,
        formula, chemsys, n_atoms, energy_ev_per_atom,
        over_reference AS e_above_reference_ev_per_atom,
        over_union AS e_above_union_ev_per_atom,
        label, covered, suspicions, second_look,
        known_before, duplicate_before, rediscovered,
        represented_by AS duplicate_after,  -- the lowest in energy of the same relaxed structure
        -- neither known nor a duplicate, as far as could be judged
        state = 'judged' AND known_before IS NULL AND rediscovered IS NULL
            AND represented_by IS NULL AND standing IS DISTINCT FROM 'known structure'
            AS unmatched,
        standing,
        unmatched AND standing IS DISTINCT FROM 'novelty not judged' AS novel,
        -- too good or too odd, and no second opinion has confirmed it
        coalesce(len(suspicions) > 0 AND second_look <> 'confirmed', false) AS suspect,
        state = 'judged' AND covered AND NOT suspect
            AND label IN ('stable', 'metastable') AS metastable,
        -- for plans, prompts and operators: like the short list, but as later candidates cannot
        -- change it: by the height over the reference, the first of those with one structure and
        -- only the first of its family
        placed.duplicate_after AS duplicate_when_judged,
        state = 'judged' AND known_before IS NULL AND rediscovered IS NULL
            AND duplicate_when_judged IS NULL AND standing IS DISTINCT FROM 'known structure'
            AND covered AND NOT suspect AND within_threshold AS worthy,
        space_group_loose, space_group_tight,
        -- in which it is shown and exported
        coalesce(symmetrised_group, space_group_tight) AS space_group,
        symmetrised_within_a, symmetrised_higher_ev_per_atom, not_symmetrised,
        coalesce(volume_per_atom_a3, proposed_volume_per_atom_a3) AS volume_per_atom_a3,
        converged,
        coalesce(rejection_reason, failure) AS reason,
        coalesce(rejection_detail, nullif(relaxation_detail, '')) AS detail,
        force_calls, cpu_s,
        over_second AS e_above_second_reference_ev_per_atom,
        second_label, second_rediscovered,
        over_second - over_reference AS second_minus_first_ev_per_atom,
        abs(over_second - over_reference) > margin AS references_disagree,
        novelty_kind, novelty_match, novelty, disorder, phonons, lowest_phonon_thz, phonons_by,
        reasons AS suspect_because, formula_seen, parent_seen, training,
        p_below_50mev, p_below_50mev_low, p_below_50mev_high,
        p_below_100mev, p_below_100mev_low, p_below_100mev_high,
        calibrator_id, probability_note,
        disputed,  -- by a second opinion; NULL without one
        -- the second potential whose energy of this structure the probability uses, and that energy
        -- minus the one in this row, on one scale
        second_energy_by, second_energy_higher_ev_per_atom,
        bare_namesakes,  -- phases of this formula whose structures the reference lacks
        -- the user's own name of a screened structure: its file, or its row
        regexp_replace(source, '(?i)(([.](cif|vasp)|^(poscar|contcar)[^#]*)([.]gz|[.]zst)?)#0$',
            '\\1') AS source,
        family_id, joined, request_id, "index", swap_of, known_kin,
        coalesce(len(known_shared) > 0, false) AS orders_known,
        orders_known OR coalesce(len(shared) > 0, false) AS exchanges,
        CASE
            WHEN family_id IS NULL THEN NULL
            WHEN standing = 'known structure'
            THEN coalesce(rediscovered, known_before, novelty_match)
            ELSE known_kin
        END AS known_phase
    FROM placed
),
-- the known phase on whose lattice it is, or another member of its family
related AS (
    SELECT
        * EXCLUDE (exchanges),
        CASE WHEN family_id IS NOT NULL THEN coalesce(
            known_kin, min(known_phase) OVER (PARTITION BY family_id)
        ) END AS related,
        bool_or(exchanges) OVER (PARTITION BY family_id) AS exchanged
    FROM shown
)
SELECT
    * EXCLUDE (
        joined, request_id, "index", worthy, swap_of, known_kin, known_phase, orders_known, related,
        exchanged
    ),
    -- of the standing: how it is related to a known phase, with the phase's id
    CASE
        WHEN coalesce(standing, 'known structure') = 'known structure' THEN NULL
        WHEN swap_of IS NOT NULL THEN 'lanthanide swap of ' || swap_of
        ELSE CASE
            WHEN CASE WHEN known_kin IS NULL THEN exchanged ELSE orders_known END
            THEN 'ordering of ' ELSE 'distortion of '
        END || CASE
            WHEN starts_with(related, formula || '#') THEN related
            ELSE formula || ' (' || related || ')'
        END
    END AS qualifier,
    coalesce(worthy AND row_number() OVER (
        PARTITION BY joined, worthy ORDER BY cycle, request_id, "index", proposal_id
    ) = 1, false) AS rewarded,
    -- judged members of different structure
    CASE WHEN family_id IS NOT NULL THEN count(*) FILTER (
        state = 'judged' AND duplicate_after IS NULL
    ) OVER (PARTITION BY family_id) END AS family_size,
    -- the lowest in energy of the short-listed members, or of the credible ones without any
    family_id IS NOT NULL AND state = 'judged' AND row_number() OVER (
        PARTITION BY family_id
        ORDER BY coalesce(unmatched AND metastable, false) DESC, state = 'judged' DESC, suspect,
            energy_ev_per_atom NULLS LAST, candidate_id
    ) = 1 AS represents_family
FROM related;

CREATE VIEW states AS SELECT proposal_id, state FROM results;

-- One row: counts of results, nested, then three that are counted separately and are not
-- discoveries; and the proposals in each state.
CREATE VIEW counts AS
WITH marks AS (
    SELECT
        state, novel, rediscovered, label, suspect, metastable,
        candidate_id IS NOT NULL AS valid,
        metastable AND label = 'stable' AS stable, represents_family
    FROM results
)
SELECT
    count(*) AS proposed,
    count(*) FILTER (state <> 'rejected_parse') AS parsed,
    count(*) FILTER (valid) AS valid,
    count(*) FILTER (valid AND state <> 'duplicate') AS "unique",
    count(*) FILTER (state IN ('hull_pending', 'judged')) AS relaxed,
    count(*) FILTER (metastable) AS metastable,
    count(*) FILTER (stable) AS stable,
    count(*) FILTER (metastable AND novel) AS novel_metastable,
    count(*) FILTER (stable AND novel) AS novel_stable,
    count(*) FILTER (metastable AND novel AND represents_family) AS novel_families,
    count(*) FILTER (rediscovered IS NOT NULL) AS rediscovered,
    count(*) FILTER (state = 'judged' AND label = 'below_reference') AS below_reference,
    count(*) FILTER (suspect) AS suspect,
    histogram(state) AS states
FROM marks;

CREATE VIEW funnel AS
WITH nested AS MATERIALIZED (SELECT * EXCLUDE (states) FROM counts)
SELECT stage, count, count / nullif((SELECT proposed FROM nested), 0) AS rate
FROM (UNPIVOT nested ON COLUMNS(*) INTO NAME stage VALUE count);

CREATE VIEW operators AS
SELECT
    operator, cycle,
    count(*) AS proposed,
    count(*) FILTER (state = 'judged') AS judged,
    count(*) FILTER (novel AND metastable) AS novel_metastable,
    count(*) FILTER (rewarded) AS new_families,
    coalesce(sum(force_calls), 0)::BIGINT AS force_calls
FROM results GROUP BY operator, cycle ORDER BY cycle, operator;

-- One row a request to a language model. Tokens are those that the server counted in all its
-- answers, of use or not; without a server, those of the answers, whose prompt counts once.
CREATE VIEW asked AS
WITH paid AS (
    SELECT
        request_id, sum(prompt_tokens)::BIGINT AS prompt_tokens,
        sum(completion_tokens)::BIGINT AS completion_tokens,
        array_distinct(flatten(list(left_out))) AS left_out
    FROM responses GROUP BY request_id
),
answered AS (
    SELECT
        request_id, count(*) AS answers, max(prompt_tokens) AS prompt_tokens,
        sum(completion_tokens)::BIGINT AS completion_tokens, min(model) AS answered_by
    FROM answers GROUP BY request_id
)
SELECT
    q.request_id, q.cycle, q.position, q.purpose, q.backend, q.model, s.answered_by,
    CASE
        WHEN f.request_id IS NOT NULL THEN 'failed'
        WHEN s.answers > 0 THEN 'answered'
        ELSE 'waiting'
    END AS state,
    coalesce(s.answers, 0) AS answers,
    coalesce(p.prompt_tokens, s.prompt_tokens) AS prompt_tokens,
    coalesce(p.completion_tokens, s.completion_tokens) AS completion_tokens,
    f.kind AS failure, f.message AS detail, q.memories, q.memories_left_out,
    coalesce(p.left_out, []) AS left_out
FROM requests q LEFT JOIN answered s USING (request_id)
LEFT JOIN request_failures f USING (request_id)
LEFT JOIN paid p USING (request_id);
"""
