"""Make a table of structure types from what nano writes.

    python -m hullward.training.structure_types.build --out TABLE.parquet --work FOLDER

It asks nano for crystals in the asymmetric form, free ones at several temperatures and ones of
given formulas; relaxes those of unknown types with the campaigns' protocol; drops unconverged and
suspect ones and those high above the hull; and keeps the best example of each distinct type that
neither AFLOW's lists nor our own files hold. All answers and relaxations are stored in the folder:
the same command continues after a stop, and more questions only add to them.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hullward.models.errors import InputError
from hullward.models.formulas import formula_amounts
from hullward.models.language import NANO_SAMPLING, LanguageModel, nano_folder
from hullward.models.potential import potential_card
from hullward.tools.crystal import AnonymousFormula, anonymous_amounts
from hullward.tools.evaluation import read_formulas
from hullward.tools.hull import Reference
from hullward.tools.prototypes import Prototype, encyclopedia_types, prototype_library
from hullward.tools.records import Protocol
from hullward.tools.reference import load_reference
from hullward.tools.reference.sources import BuiltPhases
from hullward.tools.screening import Limits
from hullward.training.crystals import in_quarantine
from hullward.training.structure_types.questions import (
    TypeQuestion,
    formula_questions,
    free_questions,
    suggested_formulas,
    wide_systems,
)
from hullward.training.structure_types.search import (
    ask,
    known_types,
    new_types,
    relax_answers,
    relaxation_order,
    stored_answers,
)
from hullward.training.structure_types.table import (
    HIGHEST_EV_PER_ATOM,
    reduce_to_table,
    write_table,
)

log = logging.getLogger(__name__)

POTENTIAL = "chgnet-0.3.0"
PROTOCOL = Protocol()  # a campaign's
MAX_ATOMS = 24  # of the primitive cell: what a reference build tries whole


def questions(
    arguments: argparse.Namespace, served: Mapping[AnonymousFormula, int]
) -> list[TypeQuestion]:
    """All questions: free ones, of given formulas, and of formulas with few known types.

    None of the formulas is quarantined.
    """
    from pymatgen.core import Composition

    embedded = load_reference("embedded").source
    assert isinstance(embedded, BuiltPhases)
    elements = potential_card(POTENTIAL).elements
    systems = [
        *embedded.manifest.systems,
        *wide_systems(arguments.wide, elements, arguments.seed),
    ]
    formulas = []
    if arguments.formulas_from:
        given = (Composition(formula_amounts(f)) for f in read_formulas(arguments.formulas_from))
        formulas = [
            c.reduced_formula
            for c in given
            if not in_quarantine(c.reduced_formula, c.chemical_system)
        ]
    formulas += suggested_formulas(systems, served, arguments.most_types)
    sampling = NANO_SAMPLING
    return [
        *free_questions(arguments.free, sampling, arguments.temperatures),
        *formula_questions(
            dict.fromkeys(formulas), arguments.number, sampling, arguments.formula_temperature
        ),
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the table, .parquet")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder of answers and relaxations"
    )
    parser.add_argument("--free", type=int, default=2000, help="free crystals a temperature")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.5, 0.7, 0.9])
    parser.add_argument("-n", dest="number", type=int, default=4, help="crystals a formula")
    parser.add_argument("--formula-temperature", type=float, default=0.7)
    parser.add_argument("--wide", type=int, default=400, help="more systems, drawn at random")
    parser.add_argument(
        "--most-types", type=int, default=40, help="skip formulas with more known types"
    )
    parser.add_argument("--formulas-from", type=Path, help="more formulas, one a line")
    parser.add_argument("--per-type", type=int, default=2, help="examples of a type to relax")
    parser.add_argument("--relaxations", type=int, help="relax at most this many in all")
    parser.add_argument("--workers", type=int, help="processes that relax; default: one a core")
    parser.add_argument("--reference", default="embedded", help="the reference whose hull counts")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    from hullward.models.language import LocalModel

    known = [*prototype_library(), *encyclopedia_types()]
    folder = nano_folder()
    rows, about = make_table(
        LocalModel(folder),
        questions(arguments, Counter(anonymous_of(p) for p in known)),
        arguments.work,
        potential=POTENTIAL,
        reference=load_reference(arguments.reference),
        known_prototypes=known,
        model_folder=folder,
        per_type=arguments.per_type,
        relaxations=arguments.relaxations,
        workers=arguments.workers,
    )
    write_table(rows, about, arguments.out)
    print(json.dumps(about["counts"], indent=1))


def make_table(
    model: LanguageModel,
    asked: Sequence[TypeQuestion],
    work: Path,
    *,
    potential: str,
    reference: Reference,
    known_prototypes: Sequence[Prototype],
    model_folder: Path,
    per_type: int = 2,
    relaxations: int | None = None,
    workers: int | None = 0,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Ask, relax and reduce; returns (rows, provenance).

    workers: processes that relax; None one a core, 0 this one.
    Raises InputError where potential and reference are on different energy schemes.
    """
    card, limits = potential_card(potential), Limits(max_atoms=MAX_ATOMS)
    if reference.energy_scheme != card.energy_scheme:
        raise InputError(
            f"no heights above {reference.reference_id!r}: {potential} predicts energies on "
            f"{card.energy_scheme!r}, the reference is on {reference.energy_scheme!r}; choose one "
            f"on {card.energy_scheme!r}"
        )
    work.mkdir(parents=True, exist_ok=True)
    ask(model, asked, work, limits, card.elements, _progress)
    known = known_types(known_prototypes, limits.max_atoms)
    groups, fates = new_types(work, known)
    log.info("%d new types of %s", len(groups), dict(fates))
    served = Counter(anonymous_of(p) for p in known_prototypes)
    turns = relaxation_order(groups, served, per_type)
    relaxed = relax_answers(turns, work, potential, PROTOCOL, relaxations, workers, _progress)
    rows, counts = reduce_to_table(groups, relaxed, known, reference, model_folder, limits)
    learnt = sum(row["formula_learnt"] for row in rows)
    answers = Counter(row["formula"] is not None for row in stored_answers(work))
    about = {
        "model": model.name,
        "top_p": sorted({q.request.sampling.top_p for q in asked}),
        "temperatures": sorted({row["temperature"] for row in stored_answers(work)}),
        "asked_freely": answers[False],
        "asked_by_formula": answers[True],
        "potential": card.name,
        "potential_sha256": card.weights_sha256,
        "protocol": PROTOCOL.model_dump(mode="json"),
        "heights_over": f"{reference.reference_id}, version {reference.version}",
        "highest_ev_per_atom": HIGHEST_EV_PER_ATOM,
        "counts": {**fates, **counts, "formula learnt": learnt},
    }
    return rows, about


def anonymous_of(prototype: Prototype) -> AnonymousFormula:
    """The anonymous formula of a type's first compound."""
    return anonymous_amounts(prototype.crystal)


def _progress(step: str, done: int, total: int) -> None:
    if step == "ask" or done % 16 == 0 or done == total:
        log.info("%s: %d of %d", step, done, total)


if __name__ == "__main__":
    main()
