"""Which records are stored, and the table of each: name, key and columns.

Columns follow from a record's fields: words, numbers and flags as they are, tuples of them as
lists, everything else as JSON text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hullward.tools import records as r

_PLAIN = ((bool, "BOOLEAN"), (int, "BIGINT"), (float, "DOUBLE"), (str, "VARCHAR"))
# Whole numbers that are not BIGINT, by field.
_WIDTHS = {"seed": "HUGEINT"} | dict.fromkeys(
    (
        "cycle", "exchange", "memories", "memories_left_out", "n_atoms", "number", "position",
        "results_up_to_cycle", "space_group", "space_group_loose", "space_group_tight",
        "space_groups", "status", "steps", "supercell",
    ),
    "INTEGER",
)  # fmt: skip

# The largest absolute value of each type of whole number. Of HUGEINT what Arrow hands over.
_LARGEST = {"INTEGER": 2**31 - 1, "BIGINT": 2**63 - 1, "HUGEINT": 10**38 - 1}


@dataclass(frozen=True)
class RecordTable:
    """Where one kind of record is stored."""

    kind: str  # what a journal line calls the record; never changes, whatever the class is called
    name: str
    record: type[r.Record]
    key: tuple[str, ...]  # fields that make a record the same one
    latest: bool = False  # the newest content replaces the old; otherwise the first one stays
    order: tuple[str, ...] = ()  # in which records are loaded; by key where empty
    id: str = ""  # the column that names a row, where the key does not
    extra: dict[str, str] = field(default_factory=dict)  # columns that are no fields: name, type
    types: dict[str, str] = field(default_factory=dict)  # of fields that are exceptions

    @cached_property
    def columns(self) -> dict[str, str]:
        """The SQL type of every column, in order."""
        fields = {
            name: self.types.get(name) or _sql_type(name, info.annotation) or "VARCHAR"
            for name, info in self.record.model_fields.items()
        }
        return fields | self.extra

    @cached_property
    def nested(self) -> frozenset[str]:
        """The fields that are stored as JSON text."""
        fields = self.record.model_fields.items()
        return frozenset(name for name, info in fields if not _sql_type(name, info.annotation))

    @cached_property
    def limits(self) -> dict[str, int]:
        """The largest absolute value of each column of whole numbers, or of lists of them."""
        types = {name: kind.removesuffix("[]") for name, kind in self.columns.items()}
        return {name: _LARGEST[kind] for name, kind in types.items() if kind in _LARGEST}

    @property
    def primary_key(self) -> tuple[str, ...]:
        return (self.id,) if self.id else self.key

    @property
    def sql(self) -> str:
        """The statement that creates the table."""
        columns = [f'"{name}" {kind}' for name, kind in self.columns.items()]
        key = ", ".join(f'"{name}"' for name in self.primary_key)
        return f"CREATE TABLE {self.name} ({', '.join(columns)}, PRIMARY KEY ({key}))"


def _sql_type(name: str, annotation: Any) -> str:
    """The column type of a field; '' for a field that is stored as JSON text."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _sql_type(name, parts[0])
    if origin in (Union, UnionType):
        (annotation,) = (part for part in parts if part is not type(None))
        return _sql_type(name, annotation)
    if origin is Literal:
        return "VARCHAR"
    if origin is tuple:
        types = {_sql_type(name, part) for part in parts if part is not ...}
        (item,) = types if len(types) == 1 else ("",)
        return f"{item}[]" if item and not item.endswith("[]") else ""
    if not isinstance(annotation, type):
        return ""
    found = next((sql for kind, sql in _PLAIN if issubclass(annotation, kind)), "")
    return _WIDTHS.get(name, found) if found == "BIGINT" else found


_PROTOCOL_ID = {"protocol_id": "VARCHAR"}
_OF_VERDICT = ("relaxation_id", "reference_id", "reference_version")
_WEIGHTS = "potential_sha256"
_latest = partial(RecordTable, latest=True)

# In the order in which records refer to each other: a batch is written in this order, so that any
# beginning of it makes sense.
TABLES: dict[str, RecordTable] = {
    table.kind: table
    for table in (
        RecordTable("CampaignRecord", "campaigns", r.CampaignRecord, ("campaign_id",)),
        # one row: a directory belongs to one campaign
        _latest("Basis", "bases", r.Basis, ("campaign_id",), extra=_PROTOCOL_ID),
        _latest("SecondReference", "second_references", r.SecondReference, ("campaign_id",)),
        RecordTable("Plan", "plans", r.Plan, ("plan_id",), order=("cycle", "plan_id")),
        RecordTable(
            "ModelRequest",
            "requests",
            r.ModelRequest,
            ("request_id",),
            order=("cycle", "position", "request_id"),
        ),
        RecordTable(
            "ModelResponse", "responses", r.ModelResponse, ("request_id", "exchange", "status")
        ),
        RecordTable(
            "ModelAnswer",
            "answers",
            r.ModelAnswer,
            ("request_id", "index"),
            types={"index": "INTEGER"},
        ),
        RecordTable("ModelFailure", "request_failures", r.ModelFailure, ("request_id",)),
        # content_id: of a proposal that is a crystal as it stands, candidate or not; else NULL.
        # candidate_id: NULL until it becomes a candidate. force_calls and cpu_s: of all relaxations
        # of a candidate, charged to the first proposal of it; NULL before.
        RecordTable(
            "Proposal",
            "proposals",
            r.Proposal,
            ("proposal_id",),
            order=("cycle", "request_id", "index", "proposal_id"),
            extra={
                "content_id": "VARCHAR",
                "candidate_id": "VARCHAR",
                "force_calls": "BIGINT",
                "cpu_s": "DOUBLE",
            },
        ),
        RecordTable("Rejection", "rejections", r.Rejection, ("proposal_id",)),
        # of proposals with the same crystal only the first one
        RecordTable(
            "Candidate",
            "candidates",
            r.Candidate,
            ("proposal_id",),
            order=("candidate_id",),
            id="candidate_id",
        ),
        RecordTable("Label", "labels", r.Label, ("proposal_id", "moment", "kind")),
        RecordTable(
            "Relaxation", "relaxations", r.Relaxation, ("relaxation_id",), extra=_PROTOCOL_ID
        ),
        _latest("Verdict", "verdicts", r.Verdict, (*_OF_VERDICT, "height")),
        _latest(
            "PhaseDiagram",
            "phase_diagrams",
            r.PhaseDiagram,
            ("chemsys", "reference_id", "reference_version"),
        ),
        _latest("Explanation", "explanations", r.Explanation, ("candidate_id", "moment")),
        _latest("FamilyMember", "families", r.FamilyMember, ("relaxation_id",)),
        _latest("SymmetrisedCell", "symmetrised_cells", r.SymmetrisedCell, ("relaxation_id",)),
        _latest("PhononCheck", "phonon_checks", r.PhononCheck, ("candidate_id", _WEIGHTS)),
        _latest("Doubt", "suspects", r.Suspect, _OF_VERDICT),
        _latest("TrainingOverlap", "training_overlaps", r.TrainingOverlap, ("candidate_id",)),
        _latest("Chance", "probabilities", r.StabilityProbability, _OF_VERDICT),
        _latest("Opinion", "opinions", r.SecondOpinion, (*_OF_VERDICT, _WEIGHTS)),
        _latest("Reading", "second_energies", r.SecondEnergy, ("relaxation_id", _WEIGHTS)),
        RecordTable("Calibration", "calibrations", r.Calibration, ("calibrator_id",)),
        RecordTable("CycleEnd", "cycles", r.CycleEnd, ("campaign_id", "cycle")),
        RecordTable("BudgetRaise", "budget_raises", r.BudgetRaise, ("campaign_id", "number")),
        RecordTable("RunEnd", "runs", r.RunEnd, ("campaign_id", "number")),
        _latest("RunTime", "run_times", r.RunTime, ("campaign_id", "number")),
    )
}
KIND_OF = {table.record: kind for kind, table in TABLES.items()}
RANK = {kind: place for place, kind in enumerate(TABLES)}
