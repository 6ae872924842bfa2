"""Commands about trust: how good the probabilities are, and learning from DFT results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hullward.agents.cli.output import Directory, Json, tell
from hullward.agents.cli.progress import Reporter

if TYPE_CHECKING:
    from hullward.tools.uncertainty import Learning

Json = Json
Reference = Annotated[str, typer.Option(help="see `hullward reference list`")]


def calibration(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DATA]",
            help="a table of structures, their DFT height and their generator; without it: what "
            "the shipped calibrator is known to do",
        ),
    ] = None,
    reference: Reference = "embedded",
    figure: Annotated[Path | None, typer.Option(help="write the reliability curve, SVG")] = None,
    write: Annotated[
        Path | None, typer.Option(help="fit to all of DATA and write the calibrator here")
    ] = None,
    name: Annotated[str, typer.Option(help="what to call it")] = "own",
    learning: Annotated[
        bool,
        typer.Option(
            "--learning",
            help="also: calibration errors once DFT results of the left-out generator were seen",
        ),
    ] = False,
    reading: Annotated[
        str,
        typer.Option(help="the potential that reads each relaxed structure too; or none"),
    ] = "sevennet-l3i5",
    workers: Annotated[int | None, typer.Option(min=0, help="worker processes")] = None,
    as_json: Json = False,
) -> None:
    """Probabilities against DFT, leaving out one generator at a time.

    The fit and the widths of its prior come from the other generators alone. Intervals are 95 %.

    DATA is Parquet or CSV with structures as `hullward screen` takes them, a column
    `dft_e_above_hull_ev_per_atom` and a column `generator`. Its structures are relaxed by the
    default protocol (kept in the home folder), read once more by another potential where they
    lie, and judged by the reference.
    """
    from hullward.tools.report.figures import reliability_figure
    from hullward.tools.uncertainty import shipped

    if data is None:
        known = shipped()
        checks = known.checks if known else ()
        document: dict[str, Any] = {"calibrator": known.name if known else None}
        lines = [known.statement if known else "no calibrator is shipped"]
    else:
        checks, document, lines = _measured(
            data,
            reference,
            write,
            name,
            learning,
            "" if reading.lower() == "none" else reading,
            workers,
            as_json,
        )
    if figure is not None and checks:
        figure.write_text(reliability_figure(checks), encoding="utf-8")
        lines.append(f"reliability curve: {figure}")
    document["checks"] = [c.model_dump(mode="json") for c in checks]
    tell(document, [*lines, *_table(checks)], as_json)


def _measured(
    data: Path,
    reference: str,
    write: Path | None,
    name: str,
    learning: bool,
    reading: str,
    workers: int | None,
    quiet: bool,
) -> tuple[Any, dict[str, Any], list[str]]:
    from hullward.agents.settings import absolute_reference, read_machine
    from hullward.agents.workspace import open_reference
    from hullward.models.errors import InputError
    from hullward.tools.records import Protocol
    from hullward.tools.uncertainty import (
        checks_of,
        fit,
        kinds_like,
        learning_curves,
        left_out_fits,
        outcomes,
        read_dft_table,
    )

    machine, protocol, potential = read_machine(), Protocol(), "chgnet-0.3.0"
    rows = read_dft_table(data)
    systems = sorted({r.crystal.chemsys for r in rows if r.crystal is not None})
    known = open_reference(absolute_reference(reference, Path.cwd()), machine, systems)
    with Reporter(quiet=quiet) as reporter:
        found, lost = outcomes(
            rows,
            potential,
            protocol,
            known,
            machine.cache_home,
            machine.workers_for(workers, None),
            reporter,
            reading,
        )
    if len({o.generator for o in found}) < 2 or len(found) < 50:
        told = ", ".join(f"{n} {reason}" for reason, n in lost.items()) or "none lost"
        raise InputError(
            f"{data.name}: {len(found)} of {len(rows)} rows came to a covered verdict ({told}), of "
            f"{len({o.generator for o in found})} generators; a fit needs 50 rows of two generators"
        )
    arrays, folds = left_out_fits(found)
    checks = checks_of(arrays, folds)
    if write is not None:
        statement = (
            f"Fitted to {len(found):,} structures of {len({o.generator for o in found})} "
            f"generators in {data.name}, relaxed with {potential}"
            f"{f', read by {reading}' if reading else ''} and judged by "
            f"{known.reference_id} version {known.version}."
        )
        calibrator = fit(
            found,
            name=name,
            potential=potential,
            protocol=protocol,
            kinds=kinds_like(known.kind),
            statement=statement,
            checks=checks,
            reading=reading,
        )
        write.write_text(calibrator.model_dump_json() + "\n", encoding="utf-8")
    lost_words = ", ".join(f"{n} {reason}" for reason, n in lost.items()) or "none"
    lines = [
        f"{len(found):,} of {len(rows):,} rows came to a covered verdict; lost: {lost_words}",
        f"reference: {known.reference_id} {known.version}",
    ]
    document = {"data": str(data), "rows": len(rows), "used": len(found), "lost": lost}
    if learning:
        curves = learning_curves(arrays, folds)
        document["learning"] = [asdict(point) for point in curves]
        lines += _learnt(curves)
    return checks, document, lines


def _learnt(curves: Sequence[Learning]) -> list[str]:
    """Calibration errors by how many DFT results were seen, a line a generator and threshold."""
    lines = ["calibration error after DFT results of the left-out generator, of its other rows:"]
    for _, points in groupby(curves, key=lambda p: (p.threshold_ev_per_atom, p.generator)):
        own = list(points)
        lines.append(
            f"    within {1000 * own[0].threshold_ev_per_atom:.0f} meV/atom, "
            f"{own[0].generator:<14} "
            + "  ".join(f"{p.results}: {p.mean:.3f} ± {p.sd:.3f}" for p in own)
        )
    return lines


def _table(checks: Any) -> list[str]:
    """The figures, one block a threshold."""
    lines = []
    for c in checks:
        low, high = c.calibration_error_interval
        gain = c.log_loss_gain
        lines += [
            f"DFT within {1000 * c.threshold_ev_per_atom:.0f} meV/atom of the hull: {c.rows:,} "
            f"rows, base rate {100 * c.base_rate:.1f} %",
            f"  Brier skill        {c.brier_skill:.3f}",
            f"  log-loss           {c.log_loss:.4f}; isotonic on E_hull alone "
            f"{c.log_loss_isotonic:.4f}; gain {gain[0]:.4f} … {gain[1]:.4f} (95 %)",
            f"  calibration error  {c.calibration_error:.3f} ({low:.3f} … {high:.3f}); a perfect "
            f"forecaster would show {c.calibration_error_floor:.3f}",
            f"  top tenth right    {100 * c.precision_top_tenth:.0f} %; by E_hull "
            f"{100 * c.precision_top_tenth_by_height:.0f} %",
        ]
        for generator, part in c.by_generator.items():
            lines.append(
                f"    without {generator:<14} {part.rows:>5} rows, base rate "
                f"{100 * part.base_rate:>4.1f} %, calibration error {_error(part)}"
            )
        if c.worst.shifted is not None:
            median, p70, p90, p95 = c.worst.shifted
            lines.append(
                f"    worst {c.worst.calibration_error:.3f} ({c.worst.generator}); were chances "
                f"right but for unseen shifts, the worst would be {median:.3f} in the median, "
                f"{p70:.3f}, {p90:.3f} and {p95:.3f} at 70, 90 and 95 %, and as bad as found in "
                f"{100 * c.worst.shifted_as_bad:.0f} % of such worlds"
            )
        lines.append("    said → found:  " + "  ".join(
            f"{100 * s:.0f}→{100 * f:.0f}"
            for s, f in zip(c.curve.said, c.curve.found, strict=True)
        ))  # fmt: skip
    return lines


def _error(part: Any) -> str:
    """A left-out generator's calibration error, its interval and its floors."""
    told = f"{part.calibration_error:.3f}"
    if part.calibration_error_interval is not None:
        low, high = part.calibration_error_interval
        told += f" ({low:.3f} … {high:.3f})"
    told += f"; perfect {part.floor:.3f}"
    if part.floor_95 is not None:
        told += f", 95 % below {part.floor_95:.3f}"
    if part.shifted_floor is not None:
        told += (
            f"; off by an unseen {1000 * part.shift_sd_ev_per_atom:.0f} meV/atom "
            f"{part.shifted_floor:.3f}, 95 % below {part.shifted_floor_95:.3f}"
        )
    return told


def calibrate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RESULTS", help="a table of candidate_id and dft_e_above_hull_ev_per_atom"
        ),
    ],
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="the campaign the candidates are of")
    ],
    as_json: Json = False,
) -> None:
    """Let DFT results move the probabilities; kept in the home folder, used from then on.

    RESULTS is Parquet or CSV with a column `candidate_id` and a column
    `dft_e_above_hull_ev_per_atom`. The data the shipped calibrator was fitted on are not needed.
    """
    from hullward.agents.followup import learn

    with Reporter(quiet=as_json) as reporter:
        answer = learn(source, directory, reporter)
    tell(answer.document(), answer.lines(), as_json)


def opinion(
    directory: Directory,
    potential: Annotated[
        str,
        typer.Option(
            help="chgnet-r2scan, chgnet-0.2.0, sevennet-0, sevennet-l3i5, mace-mp, mattersim, or "
            "ase:MODULE:FACTORY for any ASE calculator"
        ),
    ] = "chgnet-r2scan",
    top: Annotated[int, typer.Option(min=1, help="entries that should stand undisputed")] = 10,
    margin: Annotated[float, typer.Option(help="eV/atom beyond which they disagree")] = 0.05,
    max_force_calls: Annotated[int, typer.Option(min=1, help="budget")] = 20_000,
    workers: Annotated[int | None, typer.Option(min=0, help="worker processes")] = None,
    as_json: Json = False,
) -> None:
    """Ask another potential about the short list and the suspects of what is stored.

    Candidate and competing phases are relaxed by it, and decomposition energies compared, each
    wholly within its own potential. What it disputes goes to the end of the short list, and the
    next entries are asked instead, until --top stand or the budget is spent.
    """
    from hullward.agents.followup import opinions_of
    from hullward.agents.settings import SecondOpinionSettings, parse_settings

    wanted = parse_settings(
        SecondOpinionSettings,
        {
            "potential": potential,
            "top": top,
            "margin_ev_per_atom": margin,
            "max_force_calls": max_force_calls,
        },
        "opinion",
    )
    advice = opinions_of(directory, wanted, workers)
    tell(advice.document(), advice.lines(), as_json)
