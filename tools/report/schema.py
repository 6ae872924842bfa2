"""The records of a report, which are also the schema of report.json.

`report.json` is `Report` written out; HTML and Markdown have the same content. Keys are stable
within one `format`. Energies are in eV/atom (`…_ev_per_atom`), volumes in Å³ per atom,
heights are signed; null means unknown. A list that may be cut has its `total`.

    format        'hullward-report-1'
    campaign      id, kind, name, seed, settings as run, versions
    basis         the basis of the verdicts: potential, protocol, reference; null before judging
    second_reference, references_disagree
                  the second reference, or null; {total, entries} beyond its margin
    headline      five sentences
    states, funnel, rejections
                  counts, exactly those of `hullward.tools.store.funnel.count`
    short_list    {rule, total, entries}: one of each family, best first; the first ones with CIF
    rediscovered, suspects, below_reference
                  {total, entries}: counted separately, not as discoveries
    trust         probabilities that DFT agrees: how many, by which calibrator, its checks
    opinions      second opinions, and how they change the short list
    identities    comparison with known structures: counts, most frequent parents
    heights       histogram of heights over the reference and over reference and campaign
    comparisons   other potentials against the campaign's: how many energies, mean, spread
    systems       phase diagrams: points, facets, stable phases; lowest candidate per formula
    operators, cycles
                  yield of each; cycles with their plan, its reasons, and the short list so far
    stops         why proposals ended, by state and reason, with three examples each
    backends      which models wrote structures and planned, in a sentence
    asked         requests to language models by model and purpose: answered, failed, tokens
    models        language models and prompts' token counts
    cost          force calls and CPU seconds
    runs, stopped why each run ended, with CPU seconds by stage; the last one in words
    commands      how to continue: {purpose: command}
    glossary      what the words mean: {term: sentence}
"""

from __future__ import annotations

from typing import Literal

from hullward.models.crystal import Crystal
from hullward.tools.records import Basis, CampaignRecord, Product, Record, SecondReference
from hullward.tools.report.families import Family
from hullward.tools.report.heights import Comparison, CycleProgress, Heights
from hullward.tools.report.lineage import Lineage
from hullward.tools.report.novelty import Identities
from hullward.tools.report.opinions import Opinions
from hullward.tools.report.systems import System
from hullward.tools.report.uncertainty import Trust


class ReportEntry(Record):
    """One judged candidate."""

    candidate_id: str
    source: str | None = None  # the user's own name of a screened structure
    formula: str
    chemsys: str
    n_atoms: int
    operator: str
    cycle: int
    parents: tuple[str, ...]
    lineage: Lineage | None = None  # of the first entries of the short list
    energy_ev_per_atom: float | None
    e_above_reference_ev_per_atom: float | None
    e_above_union_ev_per_atom: float | None
    e_above_second_reference_ev_per_atom: float | None
    second_label: str | None
    second_rediscovered: str | None
    second_minus_first_ev_per_atom: float | None
    references_disagree: bool | None  # by more than the second reference's margin; null: unknown
    typical_error_ev_per_atom: float | None
    label: str | None
    covered: bool | None
    coverage_note: str | None
    suspicions: tuple[str, ...]
    second_look: str | None
    p_below_50mev: float | None = None  # that DFT's height is within it; with a 95 % interval
    p_below_50mev_low: float | None = None
    p_below_50mev_high: float | None = None
    p_below_100mev: float | None = None
    p_below_100mev_low: float | None = None
    p_below_100mev_high: float | None = None
    probability_note: str | None = None  # why there is none
    read_by: str | None = None  # the potential of the second energy; null: not computed
    read_higher_ev_per_atom: float | None = None  # second energy minus the first, on one scale
    disputed: bool | None = None  # by a second opinion; null: there is none
    novelty: str
    standing: str | None = None  # next to what is known; null: not compared yet, or a duplicate
    qualifier: str | None = None  # of the standing: ordering, distortion, lanthanide swap of …
    novelty_kind: str | None  # see `hullward.tools.records.assessments`; null: not compared yet
    novelty_match: str | None  # id of the phase, candidate or structure type it is like
    duplicate_after: str | None = None  # the lowest in energy of the same relaxed structure
    family: Family | None = None  # orderings of its lattice that are folded; null: there are none
    disorder: str | None  # why species may share a site in reality; null: no sign of it
    suspect_because: tuple[str, ...]  # one sentence with numbers for each suspicion
    training: str | None  # overlap with the training data of the proposing model; null: no model
    vibrations: str | None  # result of the check of vibrations; null: not checked
    decomposition_reference: tuple[Product, ...]
    decomposition_union: tuple[Product, ...]
    # in which it is shown and exported: symbol (number); 'at 0.1 Å' where no energies were compared
    space_group: str = ""
    symmetry: str = (
        ""  # the group as relaxed, the higher one within a tolerance, and at what energy
    )
    space_group_loose: str  # symbol (number), 0.1 Å
    space_group_tight: str  # 0.01 Å
    volume_per_atom_a3: float | None
    charge_note: str
    residual_force_ev_per_a: float | None
    residual_stress_gpa: float | None
    steps: int | None
    force_calls: int | None
    # as exported: the symmetrised cell where that is accepted; all other numbers are of the cell as
    # relaxed
    crystal: Crystal | None = None
    cif: str | None = None


class Listing(Record):
    """The first entries of a list, and its length."""

    total: int
    entries: tuple[ReportEntry, ...]
    rule: str = ""


class Yield(Record):
    """The results of one operator or one cycle."""

    name: str
    proposed: int
    judged: int
    novel_metastable: int
    force_calls: int


class CycleYield(Yield):
    """One cycle, with the plan it followed."""

    made_by: str = "rules"
    quotas: dict[str, int]
    not_made: int = 0  # proposals that the plan asked for and nobody made
    progress: CycleProgress = CycleProgress()
    results_up_to_cycle: int | None
    reasons: tuple[str, ...]
    formula_reasons: dict[str, str]  # of the formulas that were first


class EndCount(Record):
    """One reason to stop, and which proposals stopped for it."""

    state: str
    reason: str
    count: int
    examples: tuple[tuple[str, str], ...]  # own name or proposal id, detail


class ModelUse(Record):
    """One language model's share."""

    model: str
    proposals: int
    prompts: int
    prompt_tokens: int | None
    completion_tokens: int | None


class AskedOf(Record):
    """Requests to one language model for one purpose. A failed request is not a proposal."""

    backend: str
    model: str  # as the campaign names it
    purpose: str  # an operator, or brief or plan
    answered_by: str | None  # name and revision, as the model gave them
    requests: int
    answered: int
    failed: int
    failures: dict[str, int]  # by kind
    answers: int
    unreadable: int  # proposals rejected when parsed
    prompt_tokens: int | None
    completion_tokens: int | None
    memories_left_out: int
    left_out: tuple[str, ...] = ()  # parameters that its server refuses


class Cost(Record):
    relaxations: int
    force_calls: int
    cpu_s: float


class Run(Record):
    number: int
    reason: str
    detail: str
    stage_cpu_s: dict[str, float]


class Report(Record):
    """The content of a report; see the docstring of the module."""

    format: Literal["hullward-report-1"] = "hullward-report-1"
    campaign: CampaignRecord
    basis: Basis | None
    second_reference: SecondReference | None = None
    references_disagree: Listing = Listing(total=0, entries=())
    headline: tuple[str, ...] = ()
    states: dict[str, int]
    funnel: dict[str, int]
    rejections: dict[str, int]
    short_list: Listing
    rediscovered: Listing
    suspects: Listing
    below_reference: Listing
    identities: Identities = Identities()
    trust: Trust = Trust()
    opinions: Opinions = Opinions()
    heights: Heights = Heights()
    comparisons: tuple[Comparison, ...] = ()
    systems: tuple[System, ...]
    systems_total: int
    operators: tuple[Yield, ...]
    cycles: tuple[CycleYield, ...]
    stops: tuple[EndCount, ...]
    backends: str = ""
    asked: tuple[AskedOf, ...] = ()
    models: tuple[ModelUse, ...]
    cost: Cost
    runs: tuple[Run, ...]
    stopped: str
    commands: dict[str, str]
    glossary: dict[str, str]
