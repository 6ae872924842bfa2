"""Opening a campaign directory: whose it is, what verdicts in it rest on, and whether all fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hullward.agents.language import ModelEndpoints, open_voices
from hullward.agents.settings import (
    Campaign,
    Settings,
    read_machine,
)
from hullward.agents.workspace import (
    Workspace,
    make_screen,
    stored_settings,
    versions,
)
from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.tools.records import CampaignRecord, stable_id
from hullward.tools.screening import Screen
from hullward.tools.store import Store, read_first

_open: dict[str, Workspace] = {}


def workspace_at(directory: str) -> Workspace:
    """The bench of a directory, opened on first use and kept until it is closed."""
    key = str(Path(directory).resolve())
    if key not in _open:
        open_workspace(Path(directory), command="graph")
    return _open[key]


def open_workspace(
    directory: Path,
    *,
    command: str,
    campaign: Campaign | None = None,
    workers: int | None = None,
    voices: ModelEndpoints | None = None,
) -> Workspace:
    """Open a campaign directory for writing; with `campaign` it may be a new one.

    voices: the language models to ask, instead of those that the campaign names.
    Raises InputError when the directory belongs to something else, LockedError when another
    process writes there, PreflightError when potential and reference do not fit.
    """
    store = Store.open(directory, command=command, create=campaign is not None)
    try:
        settings = stored_settings(store, campaign)
        if not isinstance(settings, Campaign):
            raise InputError(
                f"{directory} holds the screening of {settings.name}, not a campaign; "
                "`hullward screen` goes on with it"
            )
        screen = make_screen(store, settings, workers)
        if voices is None:
            voices = open_voices(settings, read_machine(), store)
        bench = Workspace(campaign=settings, store=store, screen=screen, voices=voices)
        record_basis(screen, settings, bench.seeds)
    except BaseException:
        store.close()
        raise
    _open[str(directory.resolve())] = bench
    return bench


def close_bench(bench: Workspace) -> None:
    """Give the directory back."""
    _open.pop(str(bench.store.directory.resolve()), None)
    bench.store.close()


def record_basis(screen: Screen, settings: Settings, seeds: Mapping[str, Crystal]) -> None:
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


def kind_of(directory: Path) -> str:
    """'campaign' or 'screen'; raises InputError where there is neither."""
    record = read_first(directory, CampaignRecord)
    return record.kind if record else "campaign"


def _record(settings: Settings, inputs_digest: str) -> CampaignRecord:
    return CampaignRecord(
        campaign_id=settings.campaign_id,
        kind="campaign" if isinstance(settings, Campaign) else "screen",
        name=settings.name,
        seed=settings.seed,
        settings=settings.model_dump(mode="json"),
        versions=versions() | {"inputs": inputs_digest},
    )
