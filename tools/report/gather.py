"""Gather a report from one published snapshot; nothing is computed beyond what is stored."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from hullward.models.errors import InputError
from hullward.tools.records import Basis, CampaignRecord, Product, Record, SecondReference
from hullward.tools.report.export import ExportedStructure, cif_text, relaxed
from hullward.tools.report.families import Family, gather_families
from hullward.tools.report.glossary import GLOSSARY
from hullward.tools.report.heights import gather_comparisons, gather_heights, gather_progress
from hullward.tools.report.lineage import Lineage, gather_lineages
from hullward.tools.report.names import space_group, symmetry_words
from hullward.tools.report.novelty import gather_identities, gather_vibrations
from hullward.tools.report.opinions import gather_opinions
from hullward.tools.report.requests import gather_asked
from hullward.tools.report.schema import (
    Cost,
    CycleYield,
    EndCount,
    Listing,
    ModelUse,
    Report,
    ReportEntry,
    Run,
    Yield,
)
from hullward.tools.report.systems import gather_systems
from hullward.tools.report.uncertainty import gather_trust
from hullward.tools.store import (
    SHORT_LIST,
    SHORT_LIST_ORDER,
    SHORT_LIST_RULE,
    count,
    decode,
    fetch_records,
    fetch_rows,
)

R = TypeVar("R", bound=Record)

PICTURED = 12  # entries of the short list with picture and CIF
LISTED = 200  # entries of any list
EXAMPLES = 3  # of each reason

SUMS = """sum(proposed)::BIGINT AS proposed, sum(judged)::BIGINT AS judged,
    sum(novel_metastable)::BIGINT AS novel_metastable, sum(force_calls)::BIGINT AS force_calls"""
OPERATORS = f"""SELECT operator AS name, {SUMS} FROM operators
    GROUP BY operator ORDER BY novel_metastable DESC, operator"""
CYCLES = f"""SELECT cycle::VARCHAR AS name, {SUMS}, any_value(results_up_to_cycle) AS
    results_up_to_cycle, coalesce(any_value(quotas), '{{}}') AS quotas,
    coalesce(any_value(reasons), []) AS reasons,
    coalesce(any_value(formula_reasons), '{{}}') AS formula_reasons,
    coalesce(any_value(made_by), 'rules') AS made_by
    FROM operators LEFT JOIN (
        FROM plans QUALIFY row_number() OVER (PARTITION BY cycle ORDER BY plan_id DESC) = 1
    ) USING (cycle) GROUP BY cycle ORDER BY cycle"""
MODELS = """SELECT model, count(*) AS proposals, count(DISTINCT prompt) AS prompts,
    sum(prompt_tokens)::BIGINT AS prompt_tokens, sum(completion_tokens)::BIGINT AS completion_tokens
    FROM proposals WHERE model IS NOT NULL GROUP BY model ORDER BY model"""
COST = """SELECT count(steps) AS relaxations, coalesce(sum(force_calls), 0)::BIGINT AS force_calls,
    coalesce(sum(cpu_s), 0.0) AS cpu_s
    FROM (FROM relaxations UNION ALL BY NAME FROM symmetrised_cells)"""


def gather(connection: duckdb.DuckDBPyConnection, directory: Path) -> Report:
    """Everything a report shows. `directory` appears in the commands only."""
    counting = count(connection)
    campaign = _campaign(connection)
    runs = _runs(connection)
    systems, systems_total = gather_systems(
        connection, tuple(campaign.settings.get("systems") or ())
    )
    return Report(
        campaign=campaign,
        basis=_only(connection, Basis, "bases"),
        second_reference=_only(connection, SecondReference, "second_references"),
        references_disagree=_listing(connection, "references_disagree"),
        states=counting.states,
        funnel=counting.funnel,
        rejections=counting.rejections,
        short_list=_listing(connection, SHORT_LIST, rule=SHORT_LIST_RULE, pictured=PICTURED),
        rediscovered=_listing(connection, "rediscovered IS NOT NULL"),
        suspects=_listing(connection, "suspect"),
        identities=gather_identities(connection),
        below_reference=_listing(connection, "state = 'judged' AND label = 'below_reference'"),
        trust=gather_trust(connection, SHORT_LIST),
        opinions=gather_opinions(connection),
        heights=gather_heights(connection),
        comparisons=gather_comparisons(connection),
        systems=systems,
        systems_total=systems_total,
        operators=fetch_records(Yield, connection, OPERATORS),
        cycles=_cycles(connection),
        stops=_stops(connection),
        asked=gather_asked(connection),
        models=fetch_records(ModelUse, connection, MODELS),
        cost=fetch_records(Cost, connection, COST)[0],
        runs=runs,
        stopped=_stopped(campaign, runs, counting.states),
        commands=_commands(directory),
        glossary=GLOSSARY,
    )


def _campaign(connection: duckdb.DuckDBPyConnection) -> CampaignRecord:
    found = _only(connection, CampaignRecord, "campaigns")
    if found is None:
        raise InputError(
            "nothing to report: this directory has no campaign yet; start one with "
            "`hullward run CAMPAIGN.yaml --dir DIR` or `hullward screen INPUT --dir DIR`"
        )
    return found


def _only(connection: duckdb.DuckDBPyConnection, kind: type[R], table: str) -> R | None:
    """The record of a table that holds at most one."""
    found = fetch_rows(connection, f"FROM {table}")
    return decode(kind, found[0]) if found else None


def _listing(
    connection: duckdb.DuckDBPyConnection, condition: str, *, rule: str = "", pictured: int = 0
) -> Listing:
    """The rows of `results` that meet a condition, in the order of the short list."""
    found = fetch_rows(
        connection,
        f"""WITH wanted AS (SELECT * FROM results WHERE {condition}),
        current AS (
            SELECT v.* FROM verdicts v JOIN bases USING (reference_id, reference_version)
        )
        SELECT w.*, count(*) OVER () AS total, c.charge_note,
            x.residual_force_ev_per_a, x.residual_stress_gpa, x.steps,
            o.coverage_note, o.typical_error_ev_per_atom,
            o.decomposition AS over_reference, u.decomposition AS over_union
        FROM wanted w JOIN candidates c USING (candidate_id)
        LEFT JOIN relaxations x USING (relaxation_id)
        LEFT JOIN current o ON o.relaxation_id = w.relaxation_id AND o.height = 'reference'
        LEFT JOIN current u ON u.relaxation_id = w.relaxation_id AND u.height = 'union'
        ORDER BY {SHORT_LIST_ORDER} LIMIT {LISTED}""",
    )
    exported, lineages = {}, {}
    if pictured:
        ids = [row["candidate_id"] for row in found[:pictured]]
        lineages = gather_lineages(connection, ids)
        exported = {r.candidate_id: r for r in relaxed(connection, ids=ids, where="relaxed")}
    vibrations = gather_vibrations(connection)
    families = gather_families(connection, (row["family_id"] for row in found if rule))
    entries = tuple(
        _entry(
            row,
            exported.get(row["candidate_id"]),
            vibrations.get(row["candidate_id"]),
            families.get(row["family_id"]),
            lineages.get(row["candidate_id"]),
        )
        for row in found
    )
    total = found[0]["total"] if found else 0
    return Listing(total=total, entries=entries, rule=rule)


def _entry(
    row: Mapping[str, Any],
    exported: ExportedStructure | None,
    vibrations: str | None,
    family: Family | None,
    lineage: Lineage | None,
) -> ReportEntry:
    group, symmetry = symmetry_words(row)
    stored = {name: row[name] for name in ReportEntry.model_fields if name in row}
    shown = {
        "parents": tuple(row["parents"] or ()),
        "suspicions": tuple(row["suspicions"] or ()),
        "novelty": _novelty(row),
        "vibrations": vibrations,
        "family": family,
        "lineage": lineage,
        "suspect_because": tuple(row["suspect_because"] or ()),
        "read_by": row["second_energy_by"],
        "read_higher_ev_per_atom": row["second_energy_higher_ev_per_atom"],
        "decomposition_reference": _products(row["over_reference"]),
        "decomposition_union": _products(row["over_union"]),
        "space_group": group,
        "symmetry": symmetry,
        "space_group_loose": space_group(row["space_group_loose"]),
        "space_group_tight": space_group(row["space_group_tight"]),
        "crystal": exported.crystal if exported else None,
        "cif": cif_text(exported) if exported else None,
    }
    return ReportEntry(**stored | shown)


def _novelty(row: Mapping[str, Any]) -> str:
    if row["rediscovered"]:
        return f"known structure: {row['rediscovered']}"
    if row["known_before"]:
        return f"known structure, before relaxation: {row['known_before']}"
    if row["duplicate_after"]:
        return f"relaxed into the same structure as {row['duplicate_after']}"
    found = (row["standing"], row["qualifier"], row["novelty"])
    return "; ".join(filter(None, found)) or "not compared with known structures"


def _products(text: str | None) -> tuple[Product, ...]:
    return tuple(Product.model_validate(product) for product in json.loads(text or "[]"))


def _cycles(connection: duckdb.DuckDBPyConnection) -> tuple[CycleYield, ...]:
    rows = fetch_rows(connection, CYCLES)
    progress = gather_progress(connection)
    found = []
    for row in rows:
        row |= {name: json.loads(row[name]) for name in ("quotas", "formula_reasons")}
        missing = max(0, sum(row["quotas"].values()) - row["proposed"])
        found.append(CycleYield(**row, not_made=missing, progress=progress[row["name"]]))
    return tuple(found)


def _stops(connection: duckdb.DuckDBPyConnection) -> tuple[EndCount, ...]:
    return tuple(
        EndCount(
            state=row["state"],
            reason=row["reason"],
            count=row["n"],
            examples=tuple((i, _clip(detail)) for i, detail in row["examples"]),
        )
        for row in fetch_rows(
            connection,
            f"""SELECT state, reason, count(*) AS n,
                list((coalesce(source, proposal_id), detail) ORDER BY proposal_id)[:{EXAMPLES}]
                    AS examples
                FROM results WHERE reason IS NOT NULL
                GROUP BY state, reason ORDER BY n DESC, reason""",
        )
    )


def _runs(connection: duckdb.DuckDBPyConnection) -> tuple[Run, ...]:
    query = "SELECT number, reason, detail, stage_cpu_s FROM runs ORDER BY number"
    return tuple(
        Run(**row | {"stage_cpu_s": json.loads(row["stage_cpu_s"] or "{}")})
        for row in fetch_rows(connection, query)
    )


def _stopped(campaign: CampaignRecord, runs: Sequence[Run], states: Mapping[str, int]) -> str:
    if campaign.kind == "screen" and (not runs or states["pending"]):
        waiting, total = states["pending"], sum(states.values())
        last = campaign.settings.get("stop_after", "judged")
        return f"Screening up to {last!r}: {waiting:,} of {total:,} proposals are pending."
    if not runs:
        return "No run has ended here yet: it still runs, or its process died. No result is lost."
    last = runs[-1]
    why = f"{last.reason}: {last.detail}" if last.detail else last.reason
    return f"Run {last.number + 1} of {len(runs)} ended: {why}."


def _commands(directory: Path) -> dict[str, str]:
    where = shlex.quote(str(directory))
    return {
        "resume": f"hullward resume {where}",
        "report": f"hullward report {where}",
        "rejudge": f"hullward rejudge {where} --reference REF",
        "export": f"hullward export {where} --out structures",
        "query": f"hullward query {where} \"SELECT * FROM results WHERE state = 'judged'\"",
        "rebuild": f"hullward rebuild {where}",
    }


def _clip(detail: str | None, longest: int = 160) -> str:
    words = " ".join((detail or "").split())
    return words if len(words) <= longest else words[: longest - 1] + "…"
