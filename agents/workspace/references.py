"""Find a campaign's references by name, fetch what they need, and pin their versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from hullward.agents.settings import Campaign, Machine
from hullward.models.errors import FetchError, PreflightError
from hullward.models.potential import PotentialCard
from hullward.tools.hull import Reference
from hullward.tools.reference import load_reference, unbuilt_subsystems

if TYPE_CHECKING:
    from hullward.tools.reference.materials_project import Access

PATIENCE_AT_START_S = 120.0  # short, as the user waits and a campaign can begin without its hull
SYSTEMS_AT_START = 24  # a few calls each
SHOWN_UNBUILT = 6  # systems named in a note

Notes = Callable[[str], None]


def open_reference(spec: str, machine: Machine, systems: Sequence[str] = ()) -> Reference:
    """The reference of a name. 'mp' is the database version that holds most of the systems."""
    from hullward.tools.reference.materials_project import best_version

    if spec == "mp" and (version := best_version(machine.home_folder, systems)):
        spec = f"mp:{version}"
    return load_reference(spec, machine.home_folder)


def basis_fields(spec: str, reference: Reference) -> dict[str, Any]:
    """The fields of a basis that describe its reference, in this very version."""
    from hullward.tools.reference.materials_project import NOT_FETCHED

    if spec in ("mp", "mp-stable") and reference.version != NOT_FETCHED:
        spec = f"{spec}:{reference.version}"
    return {
        "reference_spec": spec,
        "reference_id": reference.reference_id,
        "reference_version": reference.version,
        "reference_kind": reference.kind,
        "reference_statement": reference.statement,
    }


def mp_access(
    machine: Machine, notes: Notes, patience_s: float, key: SecretStr | None = None
) -> Access:
    """How to reach the Materials Project. key: instead of the one that is set."""
    from hullward.tools.reference.materials_project import Access

    return Access(
        key=key or machine.mp_api_key,
        home=machine.home_folder,
        endpoint=machine.mp_endpoint,
        calls_per_day=machine.mp_calls_per_day,
        patience_s=patience_s,
        notes=notes,
    )


def fetch_for_start(campaign: Campaign, machine: Machine, notes: Notes) -> None:
    """Fetch what a new campaign needs of the Materials Project, once and in bulk.

    What was fetched before is used. Where nothing can be fetched, a note gives the reason: the
    campaign goes on, and its candidates wait for a hull.
    """
    from hullward.tools.reference.materials_project import (
        best_version,
        fetch_systems,
        holds,
        whole_systems,
    )

    systems = whole_systems(campaign.palettes, campaign.most_elements)
    if len(systems) > SYSTEMS_AT_START:
        notes(
            f"not fetched: {len(systems)} whole systems would be needed, more than "
            f"{SYSTEMS_AT_START}; name fewer elements, lower max_elements, or use 'mp-stable'"
        )
        return
    here = best_version(machine.home_folder, systems)
    if holds(machine.home_folder, here, systems):
        return
    try:
        fetch_systems(systems, mp_access(machine, notes, PATIENCE_AT_START_S))
    except FetchError as error:
        notes(f"not fetched: {error}")


def known_elements(campaign: Campaign, card: PotentialCard) -> frozenset[str]:
    """The elements of a campaign; raises PreflightError where the potential lacks one."""
    wanted = frozenset(e for palette in campaign.palettes for e in palette)
    if missing := sorted(wanted - card.elements):
        raise PreflightError(
            f"potential {card.name} has no parameters for {', '.join(missing)}; "
            "exclude these elements or choose another potential"
        )
    return wanted


def check_elements(
    campaign: Campaign, card: PotentialCard, reference: Reference, notes: Notes
) -> None:
    """Raise PreflightError where elements make the campaign pointless; note what has to wait."""
    wanted = known_elements(campaign, card)
    if reference.absent is not None:  # it may be fetched while the campaign runs, or after it
        waiting = [s for s in campaign.target_systems if reference.lacking(frozenset(s.split("-")))]
        if waiting:
            notes(
                f"{len(waiting)} of {len(campaign.target_systems)} systems were not fetched from "
                f"the Materials Project (e.g. {waiting[0]}): their candidates stay hull_pending. "
                f"`hullward reference fetch {waiting[0]}`, then `hullward rejudge DIR --reference "
                "mp`, judges them"
            )
        return
    if missing := reference.missing_elements(wanted):
        raise PreflightError(
            f"reference {reference.reference_id!r} has no phase of {', '.join(missing)}: nothing "
            "there could be judged. Exclude these elements or choose another `reference`"
        )
    if unbuilt := unbuilt_subsystems(reference, campaign.target_systems):
        notes(_unbuilt_words(campaign, reference, unbuilt))


def _unbuilt_words(campaign: Campaign, reference: Reference, unbuilt: Sequence[str]) -> str:
    """What a reference lacks, and the commands that build it, before the run and after it."""
    shown = ", ".join(unbuilt[:SHOWN_UNBUILT])
    more = f" and {len(unbuilt) - SHOWN_UNBUILT} more" if len(unbuilt) > SHOWN_UNBUILT else ""
    systems = " ".join(campaign.systems) or "SYSTEM…"
    name = campaign.name
    return (
        f"reference {reference.reference_id} was not built for {shown}{more}: candidates that need "
        "them will be 'not covered', and none of them short-listed. `hullward reference build "
        f"{systems} --name {name}`, then `hullward rejudge DIR --reference built:{name}`"
    )
