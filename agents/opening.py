"""Opening a campaign directory: whose it is, what verdicts in it rest on, and whether all fits."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from hullward.agents.bench import Bench
from hullward.agents.language import Voices, open_voices
from hullward.agents.looking import look_closer
from hullward.agents.references import (
    basis_fields,
    check_elements,
    fetch_for_start,
    open_reference,
    refuse_the_same_twice,
    second_basis,
)
from hullward.agents.settings import (
    Campaign,
    Machine,
    Screening,
    Settings,
    parse_settings,
    read_machine,
)
from hullward.models.crystal import Crystal
from hullward.models.errors import HullwardError, InputError, LockedError, PreflightError
from hullward.models.potential import PotentialCard, potential_card
from hullward.tools.crystal.files import KnownPhases, read_known
from hullward.tools.hull import Reference, check_compatible
from hullward.tools.records import Basis, CampaignRecord, SecondReference, stable_id
from hullward.tools.reference import load_reference
from hullward.tools.report import ReportPaths, write_report
from hullward.tools.screening import Beside, Screen
from hullward.tools.store import Store, inbox

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "chgnet", "pymatgen", "ase", "numpy", "langgraph", "duckdb", "moyopy")

_open: dict[str, Bench] = {}


def bench_at(directory: str) -> Bench:
    """The bench of a directory, opened on first use and kept until it is closed."""
    key = str(Path(directory).resolve())
    if key not in _open:
        open_bench(Path(directory), command="graph")
    return _open[key]


def open_bench(
    directory: Path,
    *,
    command: str,
    campaign: Campaign | None = None,
    workers: int | None = None,
    voices: Voices | None = None,
) -> Bench:
    """Open a campaign directory for writing; with `campaign` it may be a new one.

    voices: the language models to ask, instead of those that the campaign names.
    Raises InputError when the directory belongs to something else, LockedError when another
    process writes there, PreflightError when potential and reference do not fit.
    """
    store = Store.open(directory, command=command, create=campaign is not None)
    try:
        settings = settled(store, campaign)
        if not isinstance(settings, Campaign):
            raise InputError(
                f"{directory} holds the screening of {settings.name}, not a campaign; "
                "`hullward screen` goes on with it"
            )
        screen = make_screen(store, settings, workers)
        if voices is None:
            voices = open_voices(settings, read_machine(), store)
        bench = Bench(campaign=settings, store=store, screen=screen, voices=voices)
        claim(screen, settings, bench.seeds)
    except BaseException:
        store.close()
        raise
    _open[str(directory.resolve())] = bench
    return bench


def close_bench(bench: Bench) -> None:
    """Give the directory back."""
    _open.pop(str(bench.store.directory.resolve()), None)
    bench.store.close()


def settled(store: Store, asked: Settings | None) -> Settings:
    """The settings this directory belongs to, or those asked for if it is new; refuses others."""
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
    if asked is None:
        return parse_settings(kind, record.settings, where)
    if asked.campaign_id != record.campaign_id:
        raise InputError(
            f"{store.directory} belongs to another {record.kind} ({record.name!r}, with other "
            "settings); choose another --dir, or `hullward resume` what is there"
        )
    return asked


def make_screen(
    store: Store, settings: Settings, workers: int | None, reference_spec: str | None = None
) -> Screen:
    """The path from proposal to verdict, with the reference the verdicts there rest on.

    reference_spec: rest them on this one instead. Stores nothing. Raises InputError or
    PreflightError for settings that cannot be used, and where the reference or the potential is
    no longer what the stored verdicts rest on.
    """
    card = potential_card(settings.potential)
    if settings.second_opinion is not None:
        potential_card(settings.second_opinion.potential)  # refuse now, not after the night
    machine = read_machine()
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
    return Screen(
        store=store,
        basis=basis,
        card=card,
        reference=reference,
        second=second,
        limits=settings.limits(),
        user_phases=read_known(own) if own else KnownPhases(),
        workers=machine.workers_for(workers, settings.workers),
        home=machine.cache_home,
        relax_known=settings.relax_known,
        breaker_failures=settings.breaker_failures,
    )


def claim(screen: Screen, settings: Settings, seeds: Mapping[str, Crystal]) -> None:
    """Record whose directory this is and what its verdicts rest on, once all of it is sound.

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
        screen.store.add([screen.basis, _record(settings, inputs_digest)])
    else:
        screen.store.add([screen.basis])
    if screen.second is not None:
        screen.store.add([screen.second.basis])


def apply_waiting(screen: Screen) -> list[str]:
    """Carry out the commands left in the inbox; returns what was done or refused, a line each."""
    done = []
    for command in inbox.drain(screen.store.directory):
        if command.kind == "rejudge":
            spec = str(command.payload.get("reference", ""))
            try:
                rejudge(screen, spec)
            except HullwardError as error:  # what was asked is at fault, not this campaign
                inbox.refuse(command.path, str(error))
                done.append(f"not judged again: {error}")
                continue
            done.append(f"judged again by {spec}")
            inbox.acknowledge(command)
    return done


def kind_of(directory: Path) -> str:
    """'campaign' or 'screen'; raises InputError where there is neither."""
    with Store.open(directory, command="look") as store:
        records = store.load(CampaignRecord)
    return records[0].kind if records else "campaign"


def rejudge_directory(directory: Path, spec: str, workers: int | None) -> ReportPaths | None:
    """Judge a directory again and report; None when its writer was asked to do it instead."""
    load_reference(spec, read_machine().home_folder)
    try:
        store = Store.open(directory, command="rejudge")
    except LockedError:
        inbox.send(directory, "rejudge", {"reference": spec})
        return None
    with store:
        screen = make_screen(store, settled(store, None), workers, reference_spec=spec)
        apply_waiting(screen)
        rejudge(screen, spec)
        store.publish()
        return write_report(directory)


def rejudge(screen: Screen, spec: str) -> None:
    """Judge what is stored by another reference; raises PreflightError where it does not fit."""
    rows = screen.store.rows("SELECT DISTINCT chemsys FROM candidates ORDER BY chemsys")
    reference = open_reference(spec, read_machine(), [row["chemsys"] for row in rows])
    if reference.absent is not None and not reference.elements:
        raise PreflightError(
            f"nothing was fetched from the Materials Project yet, so {spec!r} can judge nothing; "
            "`hullward reference fetch SYSTEM` first"
        )
    check_compatible(reference, screen.card, screen.basis.protocol)
    basis = screen.basis.model_copy(update=basis_fields(spec, reference))
    screen.rejudge(basis, reference)
    look_closer(screen)


def _record(settings: Settings, inputs_digest: str) -> CampaignRecord:
    return CampaignRecord(
        campaign_id=settings.campaign_id,
        kind="campaign" if isinstance(settings, Campaign) else "screen",
        name=settings.name,
        seed=settings.seed,
        settings=settings.model_dump(mode="json"),
        versions=versions() | {"inputs": inputs_digest},
    )


def versions() -> dict[str, str]:
    """Versions of everything a result depends on, and a hash of our own source."""
    found = {"python": platform.python_version(), "hullward": version("hullward")}
    found |= {name: version(name) for name in PACKAGES}
    digest = hashlib.sha256()
    for room in ("models", "tools", "agents"):
        for path in sorted((ROOT / room).glob("*.py")):
            digest.update(path.read_bytes())
    return {**found, "source": digest.hexdigest()[:16]}


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
    """Refuse to mix verdicts; asked: another reference is what the user wants."""
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
) -> Beside | None:
    """The second reference, if one is asked for: the version it had; again: the newest there is."""
    if settings.second_reference is None:
        return None
    earlier = store.load(SecondReference)
    if not earlier:
        refuse_the_same_twice(settings)
    spec = earlier[0].reference_spec if earlier and not again else settings.second_reference
    reference = open_reference(spec, machine, _systems(store, settings))
    check_compatible(reference, card, settings.protocol)
    return Beside(reference=reference, basis=second_basis(settings, spec, reference))


def _systems(store: Store, settings: Settings) -> list[str]:
    """What has to be judged: the systems asked for, or those of what is there."""
    if isinstance(settings, Campaign):
        return list(settings.target_systems)
    return [row["chemsys"] for row in store.rows("SELECT DISTINCT chemsys FROM candidates")]
