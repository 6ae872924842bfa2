"""From a proposal to a verdict: hard checks, labels, relaxation, verdicts, suspects, explanations.

Every proposal takes this path, whether an operator made it or a file held it. The stages, in order:
`check_proposals`, `label_candidates`, `relax_candidates`, `judge_proposals`, `judge_union`,
`store_suspects`; each works with a `Screen`. `validate` holds the hard checks and their `Limits`,
`verdicts` the labels stable, metastable and so on. What follows a verdict is in its sub-package
`shortlist` (symmetrised cells, vibrations) and in `hullward.tools.uncertainty`.
"""

from hullward.tools.screening.checking import check_proposals, label_candidates
from hullward.tools.screening.diagrams import store_diagrams
from hullward.tools.screening.explain import explain_all
from hullward.tools.screening.families import store_families
from hullward.tools.screening.judging import judge_proposals, label_judged, over_reference
from hullward.tools.screening.labels import StructureIndex
from hullward.tools.screening.relaxing import relax_candidates
from hullward.tools.screening.screen import (
    OVER_REFERENCE,
    PROPOSED_ORDER,
    RELAXED,
    Hooks,
    RelaxedSeed,
    Screen,
    SecondReferenceJudge,
    StageTimes,
)
from hullward.tools.screening.suspects import (
    UNFINISHED,
    confirm_suspects,
    rattled_protocol,
    store_suspects,
    unconverged_suspects,
)
from hullward.tools.screening.training_overlap import (
    FORMULAS,
    IDS,
    audit,
    audit_new,
    digest,
    learnt_formulas,
)
from hullward.tools.screening.union import judge_union
from hullward.tools.screening.validate import (
    Facts,
    Limits,
    candidate,
    check_crystal,
    check_geometry,
)
from hullward.tools.screening.verdicts import suspicions

__all__ = [
    "FORMULAS",
    "IDS",
    "OVER_REFERENCE",
    "PROPOSED_ORDER",
    "RELAXED",
    "UNFINISHED",
    "Facts",
    "Hooks",
    "Limits",
    "RelaxedSeed",
    "Screen",
    "SecondReferenceJudge",
    "StageTimes",
    "StructureIndex",
    "audit",
    "audit_new",
    "candidate",
    "check_crystal",
    "check_geometry",
    "check_proposals",
    "confirm_suspects",
    "digest",
    "explain_all",
    "judge_proposals",
    "judge_union",
    "label_candidates",
    "label_judged",
    "learnt_formulas",
    "over_reference",
    "rattled_protocol",
    "relax_candidates",
    "store_diagrams",
    "store_families",
    "store_suspects",
    "suspicions",
    "unconverged_suspects",
]
