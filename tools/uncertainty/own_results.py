"""DFT results of the user's own: kept with the calibrator that learnt from them.

An own calibrator carries the one that it began with (`base`) and every result since, so a result
can be corrected or forgotten: the posterior is computed again from `base`. All campaigns read the
same file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hullward.models.errors import InputError
from hullward.tools.store import lock, sealed, write_whole
from hullward.tools.uncertainty.calibrator import (
    Calibrator,
    OwnDftResult,
    calibrators_folder,
    read_calibrator,
    updated,
)

OWN = "-own"  # how the names of own calibrators end


def relearnt(fitting: Calibrator, results: Mapping[str, OwnDftResult]) -> Calibrator:
    """The calibrator after these results and no others, by candidate id."""
    base = fitting.base or fitting
    kept = [results[candidate_id] for candidate_id in sorted(results)]
    heights = np.array([one.dft_ev_per_atom for one in kept])
    after = updated(base, [one.case for one in kept], heights)
    statement = base.statement.split(" Moved on by")[0]
    changes: dict[str, Any] = {
        "name": base.name.removesuffix(OWN) + OWN,
        "statement": f"{statement} Moved on by DFT results of your own.",
        "seen": (*base.seen, *sorted(results)),
        "base": base,
        "results": tuple(kept),
    }
    return after.changed(**changes)


def write_own(calibrator: Calibrator, home: Path) -> Path:
    """Write an own calibrator, with a checksum, to where every campaign finds it."""
    path = calibrators_folder(home) / f"{calibrator.name}.json"
    return write_whole(path, sealed(calibrator.model_dump_json()))


def own_calibrators(home: Path) -> dict[Path, Calibrator]:
    """The calibrators that DFT results of the user's own have moved, by file."""
    return {path: read_calibrator(path) for path in _files(home)}


def forget_results(home: Path, ids: Collection[str]) -> list[str]:
    """Take the results of these candidates out of every own calibrator; returns what was done.

    Raises InputError, and changes nothing, for a candidate without a result.
    """
    own = own_calibrators(home)
    known = {one.candidate_id for calibrator in own.values() for one in calibrator.results}
    if unknown := sorted(set(ids) - known):
        raise InputError(
            f"no DFT result of {', '.join(unknown)} is kept; `hullward calibrate --show` lists them"
        )
    lines = []
    for path, calibrator in own.items():
        left = {o.candidate_id: o for o in calibrator.results if o.candidate_id not in ids}
        gone = len(calibrator.results) - len(left)
        if not gone:
            continue
        if left:
            write_own(relearnt(calibrator, left), home)
            lines.append(f"{calibrator.name}: {gone} forgotten, {len(left)} left")
        elif calibrator.base is not None and calibrator.base.seen:  # of an earlier version
            write_own(calibrator.base, home)
            lines.append(f"{calibrator.name}: {gone} forgotten")
        else:
            path.unlink()
            lines.append(f"{calibrator.name}: {gone} forgotten, none left; {path} was deleted")
    return lines


def forget_every_result(home: Path) -> list[str]:
    """Delete every own calibrator, damaged ones too; the one it began with counts again."""
    lines = []
    for path in _files(home):
        path.unlink()
        lines.append(f"{path} was deleted, with all its DFT results")
    return lines


@contextmanager
def only_writer(home: Path) -> Iterator[None]:
    """No other process changes own calibrators meanwhile; raises LockedError if one does now."""
    folder = calibrators_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    held = lock.Lock(folder, "calibrate")
    try:
        yield
    finally:
        held.close()


def _files(home: Path) -> list[Path]:
    return sorted(calibrators_folder(home).glob(f"*{OWN}.json"))
