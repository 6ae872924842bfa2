"""`hullward propose`: the proposals of one operator for one wish, outside a campaign."""

from __future__ import annotations

import math
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hullward.agents.cli.evaluate import open_model
from hullward.agents.cli.options import Device, Json, Seed, ServerUrl, TextForm
from hullward.agents.cli.output import print_result
from hullward.models.errors import InputError
from hullward.models.formulas import formula_amounts, reduced_spelling

if TYPE_CHECKING:
    from hullward.models.crystal import Crystal
    from hullward.tools.records import Flaw, Wish
    from hullward.tools.screening import Facts


class ProposalKind(StrEnum):
    """The operators that need no parents and no earlier results."""

    DE_NOVO = "de_novo"
    ELEMENTS = "elements"
    FORMULA = "formula"
    SPACE_GROUP = "space_group"
    E_HULL = "e_hull"
    SUBSTITUTION = "substitution"


USUAL_CELL, LARGEST_CELL = 40, 200  # atoms
_NEEDS = {
    ProposalKind.DE_NOVO: (),
    ProposalKind.ELEMENTS: ("elements",),
    ProposalKind.FORMULA: ("formula",),
    ProposalKind.SPACE_GROUP: ("formula", "space_group"),
    ProposalKind.E_HULL: ("formula", "e_hull"),
    ProposalKind.SUBSTITUTION: ("formula",),
}


MostAtoms = Annotated[
    int | None, typer.Option(min=1, max=200, help="of a cell; default: 40, or 4 formula units")
]


def propose(
    operator: Annotated[ProposalKind, typer.Option(help="how proposals are made")],
    model: Annotated[
        str, typer.Option(help="'nano', a checkpoint folder, or with --url a served one")
    ] = "nano",
    elements: Annotated[str | None, typer.Option(help="such as Li-Mn-O")] = None,
    formula: Annotated[str | None, typer.Option(help="such as LiMn2O4")] = None,
    space_group: Annotated[
        int | None, typer.Option(min=1, max=230, help="number of the space group")
    ] = None,
    e_hull: Annotated[
        float | None, typer.Option(help="height above the hull, eV/atom; default: 0")
    ] = None,
    number: Annotated[int, typer.Option("-n", min=1, max=10_000, help="proposals")] = 8,
    form: Annotated[
        TextForm | None, typer.Option(help="the text form; default: the model's best")
    ] = None,
    grammar: Annotated[
        bool, typer.Option("--grammar", help="constrain the model to the wish")
    ] = False,
    max_atoms: MostAtoms = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="default: the model's")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="of one answer")] = None,
    seed: Seed = 0,
    url: ServerUrl = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Propose crystals for one wish: text, structure and the hard checks of each.

    Operators that need parents run in campaigns only. Nothing is relaxed here.
    """
    from hullward.models.language import NANO
    from hullward.tools.records import Wish

    given = _given(operator, elements, formula, space_group, e_hull)
    wish = Wish(
        elements=given.get("elements", ()),
        formula=given.get("formula"),
        space_group=given.get("space_group"),
        e_above_hull_ev_per_atom=given.get("e_hull"),
        max_atoms=max_atoms or _usual_size(given.get("formula")),
    )
    if operator is ProposalKind.SUBSTITUTION:
        drawn = _substituted(wish, number)
    else:
        text = form or (TextForm.ASYMMETRIC if model in ("nano", NANO) else TextForm.CELL)
        drawn = _written(
            model, url, device, wish, text, grammar, number, seed,
            {"temperature": temperature, "max_tokens": max_tokens},
        )  # fmt: skip
    rows = [_checked(row, wish) for row in drawn]
    document = {
        "operator": operator.value,
        "wish": given,
        "proposed": len(rows),
        "valid": sum(row["valid"] for row in rows),
        "proposals": rows,
    }
    print_result(document, _lines(document), as_json)


def _given(
    operator: ProposalKind,
    elements: str | None,
    formula: str | None,
    space_group: int | None,
    e_hull: float | None,
) -> dict[str, Any]:
    """The options of a wish; raises InputError for one that is missing or out of place."""
    from hullward.tools.hull import split_chemsys

    options: dict[str, Any] = {
        "elements": elements.split("-") if elements and split_chemsys(elements) else None,
        "formula": formula,
        "space_group": space_group,
        "e_hull": 0.0 if operator is ProposalKind.E_HULL and e_hull is None else e_hull,
    }
    needed = _NEEDS[operator]
    for name, value in options.items():
        option = f"--{name.replace('_', '-')}"
        if name in needed and value is None:
            raise InputError(f"the operator {operator.value} needs {option}")
        if name not in needed and value is not None:
            raise InputError(f"the operator {operator.value} takes no {option}")
    return {name: value for name, value in options.items() if name in needed}


def _usual_size(formula: str | None) -> int:
    """The most atoms of a cell where none is given: room for four formula units."""
    units = sum(formula_amounts(formula).values()) if formula else 0
    return min(LARGEST_CELL, max(USUAL_CELL, math.ceil(4 * units)))


def _checked(row: dict[str, Any], wish: Wish) -> dict[str, Any]:
    """The row with its structure and the outcome of the hard checks."""
    from hullward.models.potential import MPTRJ_ELEMENTS
    from hullward.tools.records import Flaw
    from hullward.tools.screening import Limits, check_crystal

    crystal: Crystal | Flaw = row.pop("crystal")
    found: Crystal | Facts | Flaw = crystal
    if not isinstance(crystal, Flaw):
        row["structure"] = crystal.model_dump(mode="json")
        row["formula"] = crystal.formula
        row["as_asked"] = _as_asked(crystal, wish)
        found = check_crystal(crystal, Limits(max_atoms=wish.max_atoms), MPTRJ_ELEMENTS)
    row["checks"] = found.model_dump(mode="json")
    row["valid"] = not isinstance(found, Flaw)
    return row


def _written(
    model: str,
    url: str | None,
    device: str | None,
    wish: Wish,
    form: TextForm,
    grammar: bool,
    number: int,
    seed: int,
    changes: dict[str, Any],
) -> list[dict[str, Any]]:
    """One row for each completion of a language model; a failed request gives rows too."""
    from hullward.agents.language import constraint_of
    from hullward.models.language import (
        NANO,
        NANO_SAMPLING,
        CompletionError,
        Request,
        Sampling,
        crystal_prompt,
        flat_formula,
    )
    from hullward.tools.evaluation import parse_text
    from hullward.tools.records import Flaw, Reason

    try:
        prompt = crystal_prompt(
            formula=flat_formula(wish.formula) if wish.formula else None,
            elements=wish.elements,
            e_above_hull_ev_per_atom=wish.e_above_hull_ev_per_atom,
            space_group=wish.space_group,
            form=form.value,
        )
    except ValueError as error:
        raise InputError(f"no prompt for this wish: {error}") from error
    constraint = None
    if grammar:
        constraint, _ = constraint_of(wish, form.value, server=url is not None)
    sampling = NANO_SAMPLING if model in ("nano", NANO) else Sampling(max_tokens=1024)
    given = {name: value for name, value in changes.items() if value is not None}
    sampling = replace(sampling, n=number, seed=seed, **given)
    writer = open_model(model, url, device)
    request = Request(request_id="propose", prompt=prompt, sampling=sampling, constraint=constraint)
    [answer] = writer.complete([request])
    about = {"model": writer.name, "prompt": prompt, "seed": seed}
    if isinstance(answer, CompletionError):
        flaw = Flaw(reason=Reason.EMPTY, detail=f"no answer: {answer}")
        return [{"raw": "", "crystal": flaw, **about} for _ in range(number)]
    return [{"raw": one.text, "crystal": parse_text(one.text), **about} for one in answer]


def _substituted(wish: Wish, number: int) -> list[dict[str, Any]]:
    """Known structure types decorated with the elements of a formula, the likeliest first.

    The types are those of the package and of structures fetched from the Materials Project.
    """
    from itertools import islice

    from hullward.agents.settings import read_machine
    from hullward.models.language import flat_formula
    from hullward.tools.hull import low_structures
    from hullward.tools.prototypes import Substitution
    from hullward.tools.reference.materials_project import read_fetched

    formula = flat_formula(wish.formula or "")
    fetched = low_structures(read_fetched(read_machine().home_folder), wish.max_atoms)
    made = Substitution(fetched, max_atoms=wish.max_atoms).propose([formula])
    return [
        {
            "raw": one.crystal.model_dump_json(),
            "crystal": one.crystal,
            "parents": list(one.parents),
            "note": one.note,
        }
        for one in islice(made, number)
    ]


def _as_asked(crystal: Crystal, wish: Wish) -> bool:
    """Whether elements and formula are as wished; the checks give the space group."""
    if wish.formula is not None:
        return crystal.formula == reduced_spelling(formula_amounts(wish.formula))
    return not wish.elements or set(crystal.species) == set(wish.elements)


def _lines(document: dict[str, Any]) -> list[str]:
    lines = [f"{document['proposed']} proposed, {document['valid']} pass the hard checks"]
    for row in document["proposals"]:
        checks = row["checks"]
        if row["valid"]:
            other = "" if row["as_asked"] else " (not the wish)"
            lines.append(
                f"  {checks['formula']}{other}, space group {checks['space_group']}, "
                f"{checks['volume_per_atom_a3']:.1f} Å3/atom"
            )
        else:
            lines.append(f"  {checks['reason']}: {checks['detail']}")
    return lines
