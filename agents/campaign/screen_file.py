"""Screen a file: proposals from elsewhere take the path of a campaign, without the agent."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hullward.agents.campaign.commands import apply_waiting
from hullward.agents.campaign.runner import end_run
from hullward.agents.campaign.stopper import Stopper
from hullward.agents.followup import assess_candidates, close_with_opinions
from hullward.agents.settings import Machine, Screening, StopAfter, parse_settings, read_machine
from hullward.agents.workspace import (
    Publisher,
    loading_words,
    make_screen,
    record_basis,
    stored_settings,
)
from hullward.models.errors import InputError, RunInterruptedError, system_reason
from hullward.tools.crystal.files import read_inputs, skipped_note, structure_files
from hullward.tools.records import Proposal, stable_id
from hullward.tools.report import ReportPaths, write_report
from hullward.tools.screening import (
    Screen,
    check_proposals,
    judge_proposals,
    judge_union,
    label_candidates,
    relax_candidates,
)
from hullward.tools.store import Store

STEPS: tuple[StopAfter, ...] = ("parse", "valid", "novel", "relaxed", "judged")
BATCH_CHARS = 16_000_000  # of proposals that are stored at once
CHUNK = 1000  # structures relaxed and judged, the lowest first, before the next ones


def describe(path: Path, **settings: object) -> Screening:
    """Settings of a screening of one file or folder, named by its content."""
    if not path.exists():
        raise InputError(f"input {path} does not exist")
    try:
        digest = _content_sha256(path)
    except OSError as error:
        raise InputError(f"input {path} cannot be read: {system_reason(error)}") from error
    name = _written(path.name)
    found = {"name": Path(name).stem.lower(), "input_name": name, "input_sha256": digest}
    return parse_settings(Screening, {**found, **settings}, "screen")


def _written(name: str) -> str:
    """A file's name as text that can be stored, also where it is not UTF-8."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _content_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for file in structure_files(path) if path.is_dir() else [path]:
        digest.update(os.fsencode(file.name))
        with file.open("rb") as content:
            while piece := content.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def screen_file(
    directory: Path,
    path: Path | None,
    settings: Screening | None,
    *,
    machine: Machine | None = None,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
    notes: Callable[[str], None] = lambda line: None,
) -> ReportPaths:
    """Judge every proposal of a file; run again, it goes on where it stopped.

    path and settings None: go on with the screening that is in the directory.  machine: None for
    the one that the environment describes.
    Raises RunInterruptedError when stopped on request, with everything finished stored.
    """
    machine = machine or read_machine()
    stopper = Stopper(directory)
    with Store.open(directory, command="screen", create=settings is not None) as store:
        for line in store.notes:
            notes(line)
        there = stored_settings(store, settings)
        if not isinstance(there, Screening):
            raise InputError(f"{directory} holds the campaign {there.name!r}, not a screening")
        notes(loading_words(there))
        proposals = _proposals(path, there) if path is not None else iter(())
        screen = make_screen(store, there, machine, workers, progress=progress, stopping=stopper)
        record_basis(screen, there, {})
        if path is not None and (left_out := skipped_note(path)):
            notes(left_out)
        for batch in proposals:
            store.add(batch)
        with stopper.listening(store.is_busy):
            try:
                screen = _to_the_end(screen, there, machine, stopper, notes)
            except KeyboardInterrupt:
                stopper.obeyed()
            stopper.acknowledge()
            end_run(screen, "stopped" if stopper.asked else "finished", f"up to {there.stop_after}")
            store.publish()
            paths = write_report(directory)
        if stopper.asked:
            raise RunInterruptedError(
                f"stopped on {stopper.asked}; run the same command again to go on; "
                f"report so far: {paths.html}"
            )
        return paths


def _to_the_end(
    screen: Screen,
    there: Screening,
    machine: Machine,
    stopper: Stopper,
    notes: Callable[[str], None],
) -> Screen:
    """Run all steps and what was asked for meanwhile; returns the screen to go on with."""
    _steps(screen, there.stop_after, machine.home_folder)
    screen, done = apply_waiting(screen, machine)
    for line in done:
        notes(line)
    if there.stop_after == "judged" and not stopper.asked:
        close_with_opinions(screen, there.second_opinion, notes)
    return screen


def _steps(screen: Screen, last: StopAfter, home: Path) -> None:
    """Run the stages up to `last`, each in chunks: all proposals at once may not fit in memory."""
    wanted = STEPS[: STEPS.index(last) + 1]
    timed, stopping = screen.hooks.timed, screen.hooks.stopping
    for chunk in _chunks(screen.store):
        with timed("check"):
            check_proposals(screen, chunk, parse_only=last == "parse")
        if stopping():
            break
    if "novel" in wanted:
        for chunk in _chunks(screen.store):
            if stopping():
                break
            with timed("match"):
                label_candidates(screen, chunk)
    if "relaxed" not in wanted:
        if "novel" in wanted:
            assess_candidates(screen, home)
        return
    publisher = Publisher(screen.store)
    for chunk in _chunks(screen.store):
        relax_candidates(screen, chunk)
        if "judged" in wanted and not stopping():
            with timed("judge"):
                judge_proposals(screen, chunk)
        publisher.at_a_milestone()
        if stopping():
            return
    if "judged" in wanted:
        with timed("judge"):
            judge_union(screen)
    assess_candidates(screen, home)


def _chunks(store: Store) -> Iterator[list[Proposal]]:
    """Every proposal of the file, CHUNK at a time, in their order."""
    rows = store.rows('SELECT proposal_id FROM proposals ORDER BY cycle, "index", proposal_id')
    ids = [row["proposal_id"] for row in rows]
    for start in range(0, len(ids), CHUNK):
        yield store.load(Proposal, ids[start : start + CHUNK])


def _proposals(path: Path, settings: Screening) -> Iterator[list[Proposal]]:
    """The proposals of a file in batches; raises InputError at once for one that has none."""
    request_id = stable_id("q", settings.campaign_id, settings.input_sha256)
    inputs = read_inputs(path)

    def batches() -> Iterator[list[Proposal]]:
        batch: list[Proposal] = []
        size = 0
        for index, item in enumerate(inputs):
            batch.append(
                Proposal(
                    proposal_id=stable_id("x", request_id, index),
                    request_id=request_id,
                    campaign_id=settings.campaign_id,
                    cycle=0,
                    index=index,
                    operator="external",
                    seed=settings.seed,
                    raw=item.raw,
                    format=item.format,
                    source=item.source,
                    target_formula=item.target_formula,
                )
            )
            size += len(item.raw)
            if len(batch) == CHUNK or size > BATCH_CHARS:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    return batches()
