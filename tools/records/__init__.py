"""Frozen records: the vocabulary of every stage, from a proposal to a verdict.

A record never changes once written, refuses unknown fields and has units in its names. What
happened to a proposal follows from the records with its id. Nothing here is stored or computed:
`hullward.tools.store` stores records, the other packages make them.

Start with `Proposal`, `Candidate`, `Relaxation`, `Verdict`; `Reason` lists why proposals stop.
"""

from hullward.tools.records.assessments import (
    Explanation,
    FamilyMember,
    NoveltyKind,
    PhononCheck,
    SoftMode,
    Standing,
    Suspect,
    TrainingOverlap,
)
from hullward.tools.records.base import Flaw, Reason, Record, Stage, State, stable_id
from hullward.tools.records.campaign import (
    Basis,
    BudgetRaise,
    CampaignRecord,
    CycleEnd,
    OperatorOutcome,
    Plan,
    RunEnd,
    RunTime,
    SecondReference,
)
from hullward.tools.records.candidates import (
    Candidate,
    Label,
    Proposal,
    Protocol,
    Rejection,
    Relaxation,
)
from hullward.tools.records.requests import (
    ModelAnswer,
    ModelFailure,
    ModelRequest,
    ModelResponse,
    Wish,
)
from hullward.tools.records.symmetry import SymmetrisedCell
from hullward.tools.records.uncertainty import (
    Calibration,
    Check,
    Curve,
    LeftOut,
    SecondEnergy,
    SecondOpinion,
    StabilityProbability,
    Worst,
)
from hullward.tools.records.verdicts import (
    DiagramPhase,
    PhaseDiagram,
    Product,
    SecondLook,
    Suspicion,
    Verdict,
    VerdictLabel,
)

__all__ = [
    "Basis",
    "BudgetRaise",
    "Calibration",
    "CampaignRecord",
    "Candidate",
    "Check",
    "Curve",
    "CycleEnd",
    "DiagramPhase",
    "Explanation",
    "FamilyMember",
    "Flaw",
    "Label",
    "LeftOut",
    "ModelAnswer",
    "ModelFailure",
    "ModelRequest",
    "ModelResponse",
    "NoveltyKind",
    "OperatorOutcome",
    "PhaseDiagram",
    "PhononCheck",
    "Plan",
    "Product",
    "Proposal",
    "Protocol",
    "Reason",
    "Record",
    "Rejection",
    "Relaxation",
    "RunEnd",
    "RunTime",
    "SecondEnergy",
    "SecondLook",
    "SecondOpinion",
    "SecondReference",
    "SoftMode",
    "StabilityProbability",
    "Stage",
    "Standing",
    "State",
    "Suspect",
    "Suspicion",
    "SymmetrisedCell",
    "TrainingOverlap",
    "Verdict",
    "VerdictLabel",
    "Wish",
    "Worst",
    "stable_id",
]
