"""Constraints that hold a model to a text form and to a wish."""

from __future__ import annotations

from hullward.models.errors import InputError
from hullward.models.language import Constraint, TextForm
from hullward.tools.crystal.text import crystal_grammar, unit_grammar
from hullward.tools.records import Wish


def constraint_of(wish: Wish, form: TextForm, *, server: bool) -> tuple[Constraint, str]:
    """The constraint of a wish and its name; raises InputError where no text can fulfil it.

    A text that lists every site shows no space group: only the asymmetric form is held to one.
    """
    elements = () if wish.formula is not None else wish.allowed or wish.elements
    cell = crystal_grammar(
        formula=wish.formula,
        elements=elements,
        only=bool(elements and wish.allowed),
        max_atoms=wish.max_atoms,
    )
    if form == "cell":
        return cell.constraint(server=server), cell.name
    unit = unit_grammar(cell, wish.space_group)
    return unit.constraint(), unit.name


def constrain(wish: Wish, form: TextForm, *, server: bool) -> tuple[Constraint | None, str]:
    """The constraint of a wish and its name, or (None, '') where there is none to send.

    No text may fulfil the wish, and no server takes a grammar of symmetry.
    """
    if server and form == "asymmetric":
        return None, ""
    try:
        return constraint_of(wish, form, server=server)
    except InputError:
        return None, ""
