"""Set up the workspace of a campaign directory: settings, reference, potential, verdict basis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from hullward.agents.language import ModelEndpoints, open_endpoints
from hullward.agents.settings import Budget, Campaign, Machine, Screening, Settings, parse_settings
from hullward.agents.workspace.budget import Spending
from hullward.agents.workspace.provenance import versions
from hullward.agents.workspace.publishing import Publisher
from hullward.agents.workspace.references import (
    basis_fields,
    check_elements,
    fetch_for_start,
    known_elements,
    open_reference,
)
from hullward.agents.workspace.workspace import Workspace, relaxed_seeds
from hullward.models.crystal import Crystal
from hullward.models.errors import InputError, PreflightError
from hullward.models.potential import PotentialCard, potential_card
from hullward.tools.crystal.files import KnownPhases, read_known, skipped_note
from hullward.tools.hull import Reference, check_compatible
from hullward.tools.records import Basis, BudgetRaise, CampaignRecord, SecondReference, stable_id
from hullward.tools.reference import KnownIndex, load_known_index
from hullward.tools.screening import Hooks, Screen, SecondReferenceJudge, StageTimes
from hullward.tools.store import Store, read_first

Progress = Callable[[str, int, int], None]


def open_workspace(
    directory: Path,
    machine: Machine,
    *,
    command: str,
    campaign: Campaign | None = None,
    workers: int | None = None,
    endpoints: ModelEndpoints | None = None,
    progress: Progress = lambda step, done, total: None,
    stopping: Callable[[], bool] = lambda: False,
    notes: Callable[[str], None] = lambda line: None,
) -> Workspace:
    """Open a campaign directory for writing; with `campaign` it may be a new one.

    endpoints: the language models to ask, instead of those that the campaign names.
    Raises InputError when the directory belongs to something else, LockedError when another
    process writes there, PreflightError when potential and reference do not fit.
    """
    if campaign is not None:
        check_potentials(campaign)
    store = Store.open(directory, command=command, create=campaign is not None)
    try:
        settings = stored_settings(store, campaign)
        if not isinstance(settings, Campaign):
            raise InputError(
                f"{directory} holds the screening of {settings.name}, not a campaign; "
                "`hullward screen` goes on with it"
            )
        notes(loading_words(settings))
        spending, publisher = Spending.of(settings, store), Publisher(store)
        screen = make_screen(
            store,
            settings,
            machine,
            workers,
            progress=_noting(spending, publisher, progress),
            stopping=lambda: stopping() or spending.time_is_over(),
        )
        if endpoints is None:
            endpoints = open_endpoints(settings, machine, store)
        workspace = Workspace(
            campaign=settings,
            store=store,
            screen=screen,
            machine=machine,
            spending=spending,
            publisher=publisher,
            endpoints=endpoints,
        )
        record_basis(screen, settings, workspace.seeds)
        if workspace.seeds:
            relaxed = relaxed_seeds(settings.seeds_from, screen.basis)
            workspace.screen = replace(screen, seeds=relaxed)
    except BaseException:
        store.abandon()
        raise
    return workspace


def loading_words(settings: Settings) -> str:
    """What takes the first seconds of a run."""
    return f"loading {settings.potential} and checking the reference {settings.reference} …"


def check_potentials(settings: Settings) -> None:
    """Raise PreflightError for potentials that are not here, or lack an element of the campaign."""
    card = potential_card(settings.potential)
    if settings.second_opinion is not None:
        potential_card(settings.second_opinion.potential)  # refuse now, not after the night
    if isinstance(settings, Campaign):
        known_elements(settings, card)


def _noting(spending: Spending, publisher: Publisher, progress: Progress) -> Progress:
    """Progress that also stores how long the run has lasted, and publishes, now and then."""

    def progress_and_note(step: str, done: int, total: int) -> None:
        progress(step, done, total)
        spending.note(now=False)
        publisher.meanwhile()

    return progress_and_note


def kind_of(directory: Path) -> str:
    """'campaign' or 'screen'; raises InputError where there is neither."""
    record = read_first(directory, CampaignRecord)
    return record.kind if record else "campaign"


def stored_settings(store: Store, asked: Settings | None) -> Settings:
    """The settings stored in a directory, or those given where it is new; refuses other ones."""
    stored = store.load(CampaignRecord)
    if not stored:
        if asked is None:
            raise InputError(
                f"{store.directory} holds no campaign; start one with `hullward run` or "
                "`hullward screen`"
            )
        return asked
    (record,) = stored
    where = f"settings stored in {store.directory}"
    kind = Campaign if record.kind == "campaign" else Screening
    begun: Settings = parse_settings(kind, record.settings, where)
    if isinstance(begun, Campaign):
        for raised in store.load(BudgetRaise):
            begun = begun.with_budget(parse_settings(Budget, raised.budget, where))
    if asked is None:
        return begun
    if isinstance(asked, Campaign) and isinstance(begun, Campaign):
        asked = asked.goes_on_from(begun)
    if asked.campaign_id != record.campaign_id:
        raise InputError(
            f"{store.directory} belongs to another {record.kind} ({record.name!r}): "
            f"{'; '.join(_differences(begun, asked))}. Choose another --dir, or `hullward resume` "
            "what is there; of a campaign only limits of `budget` may be raised"
        )
    return asked


def _differences(begun: Settings, asked: Settings) -> list[str]:
    """The settings that differ; the kind of work where that does."""
    if type(begun) is not type(asked):
        return [f"{type(begun).__name__.lower()} there, {type(asked).__name__.lower()} here"]
    return asked.differences(begun)


def make_screen(
    store: Store,
    settings: Settings,
    machine: Machine,
    workers: int | None,
    *,
    reference_spec: str | None = None,
    progress: Progress = lambda step, done, total: None,
    stopping: Callable[[], bool] = lambda: False,
) -> Screen:
    """The context of screening, with the reference that the stored verdicts rest on.

    reference_spec: rest them on this one instead. Stores nothing. Raises InputError or
    PreflightError for settings that cannot be used, and where the reference or the potential is
    no longer what the stored verdicts rest on.
    """
    card = potential_card(settings.potential)
    earlier = store.load(Basis)
    spec = reference_spec or (earlier[0].reference_spec if earlier else settings.reference)
    asked = (spec, settings.second_reference)
    if isinstance(settings, Campaign) and "mp" in asked and not earlier:
        fetch_for_start(settings, machine, store.notes.append)
    reference = open_reference(spec, machine, _systems(store, settings))
    basis = make_basis(settings, card, spec, reference)
    if earlier:
        _check_unchanged(store.directory, earlier[0], basis, asked=reference_spec is not None)
    if isinstance(settings, Campaign) and reference_spec is None:
        check_elements(settings, card, reference, store.notes.append)
    second = _second(store, settings, card, machine, again=reference_spec is not None)
    own = settings.known_phases
    if own and (left_out := skipped_note(own)):
        store.notes.append(left_out)
    executor = machine.executor(workers, of=(settings.workers, settings.device))
    return Screen(
        store=store,
        basis=basis,
        card=card,
        reference=reference,
        second=second,
        limits=settings.limits(),
        index=known_index(store.notes.append),
        user_phases=read_known(own) if own else KnownPhases(),
        executor=executor,
        relax_known=settings.relax_known,
        breaker_failures=settings.breaker_failures,
        hooks=Hooks(progress, stopping, StageTimes(whole_process=executor.in_this_process)),
    )


def known_index(note: Callable[[str], None]) -> KnownIndex | None:
    """The index of known structures; without a usable one there is a note, and the rest goes on."""
    try:
        return load_known_index()
    except InputError as error:
        note(f"{error}; candidates are compared with the reference's structures alone")
        return None


def make_basis(settings: Settings, card: PotentialCard, spec: str, reference: Reference) -> Basis:
    """What verdicts rest on; raises PreflightError where potential and reference do not fit."""
    check_compatible(reference, card, settings.protocol)
    return Basis(
        campaign_id=settings.campaign_id,
        potential=card.name,
        potential_sha256=card.weights_sha256,
        energy_scheme=card.energy_scheme,
        protocol=settings.protocol,
        metastable_ev_per_atom=settings.metastable_ev_per_atom,
        **basis_fields(spec, reference),
    )


def _check_unchanged(directory: Path, stored: Basis, now: Basis, *, asked: bool) -> None:
    """Refuse to mix verdicts; asked: the user wants another reference."""
    if stored.potential_sha256 != now.potential_sha256:
        raise PreflightError(
            f"{directory} was relaxed with {stored.potential} {stored.potential_sha256[:12]}; here "
            f"it has the weights {now.potential_sha256[:12]}. Go on with the same weights, or "
            "choose another directory"
        )
    if not asked and (stored.reference_id, stored.reference_version) != (
        now.reference_id,
        now.reference_version,
    ):
        raise PreflightError(
            f"reference {now.reference_spec!r} has changed since the verdicts in {directory}: "
            f"version {stored.reference_version} then, {now.reference_version} now. "
            f"`hullward rejudge {directory} --reference {now.reference_spec}` judges all of them "
            "by the new one; then go on"
        )


def _second(
    store: Store, settings: Settings, card: PotentialCard, machine: Machine, *, again: bool
) -> SecondReferenceJudge | None:
    """The second reference, if any, in the version stored; again: in the newest version."""
    if settings.second_reference is None:
        return None
    earlier = store.load(SecondReference)
    if not earlier and settings.second_reference == settings.reference:
        raise InputError(
            f"second_reference {settings.reference!r} is the same as reference; name another one, "
            "or leave it out"
        )
    spec = earlier[0].reference_spec if earlier and not again else settings.second_reference
    reference = open_reference(spec, machine, _systems(store, settings))
    check_compatible(reference, card, settings.protocol)
    basis = SecondReference(
        campaign_id=settings.campaign_id,
        disagreement_ev_per_atom=settings.disagreement_ev_per_atom,
        **basis_fields(spec, reference),
    )
    return SecondReferenceJudge(reference=reference, basis=basis)


def _systems(store: Store, settings: Settings) -> list[str]:
    """Chemical systems to judge: those of the campaign, or those of the stored candidates."""
    if isinstance(settings, Campaign):
        return list(settings.target_systems)
    return [row["chemsys"] for row in store.rows("SELECT DISTINCT chemsys FROM candidates")]


def record_basis(screen: Screen, settings: Settings, seeds: Mapping[str, Crystal]) -> None:
    """Store the campaign and the basis of its verdicts, once all of it is sound.

    Raises InputError where the user's phases or the seeds are no longer those it began with:
    what follows would not be the same campaign.
    """
    given = [(i, c.content_id) for i, c in (*screen.user_phases, *sorted(seeds.items()))]
    inputs_digest = stable_id("in", given)
    stored = screen.store.load(CampaignRecord)
    if stored and stored[0].versions.get("inputs", inputs_digest) != inputs_digest:
        raise InputError(
            f"known_phases or seeds_from of {screen.store.directory} hold other structures than "
            "when it began; put them back, or start anew in another --dir"
        )
    if not stored:
        devices = ", ".join(screen.executor.devices(settings.potential))
        record = CampaignRecord(
            campaign_id=settings.campaign_id,
            kind="campaign" if isinstance(settings, Campaign) else "screen",
            name=settings.name,
            seed=settings.seed,
            settings=settings.model_dump(mode="json"),
            versions=versions() | {"inputs": inputs_digest, "device": devices},
        )
        screen.store.add([screen.basis, record])
    else:
        screen.store.add([screen.basis])
        if isinstance(settings, Campaign):
            _record_budget(screen.store, settings, stored[0])
    if screen.second is not None:
        screen.store.add([screen.second.basis])


def _record_budget(store: Store, campaign: Campaign, stored: CampaignRecord) -> None:
    """Store a budget that was raised since the campaign, or its last run, began."""
    earlier = store.load(BudgetRaise)
    budget = campaign.budget.model_dump(mode="json")
    if budget != (earlier[-1].budget if earlier else stored.settings["budget"]):
        raised = BudgetRaise(campaign_id=stored.campaign_id, number=len(earlier), budget=budget)
        store.add([raised])
