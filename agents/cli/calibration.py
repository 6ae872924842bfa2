"""Commands about calibrators: measure one, fit one, update one with DFT results.

The calibrator gives the probability that DFT finds a candidate on or near the hull.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hullward.agents.cli.options import Device, Json, ReferenceName, Workers
from hullward.agents.cli.output import Reporter, print_result, require_writable
from hullward.models.errors import InputError

if TYPE_CHECKING:
    from hullward.tools.hull import Reference
    from hullward.tools.records import Check
    from hullward.tools.relax import Executor
    from hullward.tools.uncertainty import Learning, Outcome, OwnDftResult

POTENTIAL = "chgnet-0.3.0"  # relaxes the structures of DATA, by the default protocol
LEAST_ROWS = 50

Data = Annotated[
    Path | None,
    typer.Argument(
        metavar="[DATA]",
        help="a table of structures with their DFT height and generator; without it: the figures "
        "of the shipped calibrator",
    ),
]
Figure = Annotated[Path | None, typer.Option(help="write the reliability curve here, as SVG")]
Write = Annotated[
    Path | None, typer.Option(help="fit to all of DATA and write the calibrator here")
]
LearningToo = Annotated[
    bool,
    typer.Option(
        "--learning",
        help="also measure calibration errors after DFT results of the left-out generator",
    ),
]
SecondPotentialName = Annotated[
    str,
    typer.Option(
        "--reading",
        help="the potential that computes a second energy of each relaxed structure; or 'none'",
    ),
]


def calibration(
    data: Data = None,
    reference: ReferenceName = "embedded",
    figure: Figure = None,
    write: Write = None,
    name: Annotated[str, typer.Option(help="name of the new calibrator")] = "own",
    learning: LearningToo = False,
    second_potential: SecondPotentialName = "sevennet-l3i5",
    workers: Workers = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Compare probabilities with DFT, leaving out one generator at a time.

    The fit and the widths of its prior come from the other generators alone. Intervals are 95 %.

    DATA is Parquet or CSV with structures as `hullward screen` takes them, a column
    `dft_e_above_hull_ev_per_atom` and a column `generator`. Its structures are relaxed by the
    default protocol (kept in the home folder), given a second energy by another potential at the
    relaxed geometry, and judged by the reference.
    """
    from hullward.agents.settings import read_machine
    from hullward.tools.report.figures import reliability_figure
    from hullward.tools.uncertainty import shipped

    require_writable(figure, write)
    if data is None:
        known = shipped()
        checks: Sequence[Check] = known.checks if known else ()
        document: dict[str, Any] = {"calibrator": known.name if known else None}
        lines = [known.statement if known else "no calibrator is shipped"]
    else:
        second = "" if second_potential.lower() == "none" else second_potential
        checks, document, lines = _measured(
            data,
            reference,
            write,
            name,
            learning,
            second,
            read_machine(device).executor(workers),
            as_json,
        )
    if figure is not None and checks:
        figure.write_text(reliability_figure(checks), encoding="utf-8")
        lines.append(f"reliability curve: {figure}")
    document["checks"] = [c.model_dump(mode="json") for c in checks]
    print_result(document, [*lines, *_table(checks)], as_json)


def _measured(
    data: Path,
    reference_name: str,
    write: Path | None,
    name: str,
    learning: bool,
    second_potential: str,
    executor: Executor,
    quiet: bool,
) -> tuple[Sequence[Check], dict[str, Any], list[str]]:
    """The checks of a fit to DATA, the document and the lines about it."""
    from hullward.tools.uncertainty import checks_of, learning_curves, left_out_fits, read_dft_table

    rows = read_dft_table(data)
    systems = sorted({r.crystal.chemsys for r in rows if r.crystal is not None})
    reference, found, lost = _outcomes(
        rows, systems, reference_name, second_potential, executor, quiet
    )
    _require_enough(data, len(rows), found, lost)
    arrays, folds = left_out_fits(found)
    checks = checks_of(arrays, folds)
    if write is not None:
        _fit(write, name, data, found, checks, reference, second_potential)
    lines = [
        f"{len(found):,} of {len(rows):,} rows have a covered verdict; lost: {_counted(lost)}",
        f"reference: {reference.reference_id} {reference.version}",
    ]
    document = {"data": str(data), "rows": len(rows), "used": len(found), "lost": lost}
    if learning:
        curves = learning_curves(arrays, folds)
        document["learning"] = [asdict(point) for point in curves]
        lines += _learning_lines(curves)
    return checks, document, lines


def _outcomes(
    rows: list[Any],
    systems: Sequence[str],
    reference_name: str,
    second_potential: str,
    executor: Executor,
    quiet: bool,
) -> tuple[Reference, list[Outcome], dict[str, int]]:
    """The reference, the rows that it judged, and the counts of the others by reason."""
    from hullward.agents.settings import absolute_reference, read_machine
    from hullward.agents.workspace import open_reference
    from hullward.tools.records import Protocol
    from hullward.tools.uncertainty import outcomes

    machine = read_machine()
    spec = absolute_reference(reference_name, Path.cwd())
    reference = open_reference(spec, machine, systems)
    with Reporter(quiet=quiet) as reporter:
        found, lost = outcomes(
            rows,
            POTENTIAL,
            Protocol(),
            reference,
            executor,
            reporter,
            second_potential,
        )
    return reference, found, lost


def _require_enough(
    data: Path, rows: int, found: Sequence[Outcome], lost: Mapping[str, int]
) -> None:
    generators = {outcome.generator for outcome in found}
    if len(generators) < 2 or len(found) < LEAST_ROWS:
        raise InputError(
            f"{data.name}: {len(found)} of {rows} rows have a covered verdict (lost: "
            f"{_counted(lost)}), of {len(generators)} generators; a fit needs {LEAST_ROWS} rows "
            "of two generators"
        )


def _fit(
    path: Path,
    name: str,
    data: Path,
    found: Sequence[Outcome],
    checks: Sequence[Check],
    reference: Reference,
    second_potential: str,
) -> None:
    """Fit a calibrator to all outcomes and write it."""
    from hullward.tools.records import Protocol
    from hullward.tools.uncertainty import fit, kinds_like

    generators = {outcome.generator for outcome in found}
    second = f", with second energies of {second_potential}" if second_potential else ""
    statement = (
        f"Fitted to {len(found):,} structures of {len(generators)} generators in {data.name}, "
        f"relaxed with {POTENTIAL}{second} and judged by {reference.reference_id} version "
        f"{reference.version}."
    )
    calibrator = fit(
        found,
        name=name,
        potential=POTENTIAL,
        protocol=Protocol(),
        kinds=kinds_like(reference.kind),
        statement=statement,
        checks=checks,
        reading=second_potential,
    )
    path.write_text(calibrator.model_dump_json() + "\n", encoding="utf-8")


def _counted(lost: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in lost.items()) or "none"


def _learning_lines(curves: Sequence[Learning]) -> list[str]:
    """Calibration errors by number of DFT results, a line for each generator and threshold."""
    lines = ["calibration error on other rows of the left-out generator, by DFT results used:"]
    for _, points in groupby(curves, key=lambda p: (p.threshold_ev_per_atom, p.generator)):
        own = list(points)
        lines.append(
            f"    within {1000 * own[0].threshold_ev_per_atom:.0f} meV/atom, "
            f"{own[0].generator:<14} "
            + "  ".join(f"{p.results}: {p.mean:.3f} ± {p.sd:.3f}" for p in own)
        )
    return lines


def _table(checks: Sequence[Check]) -> list[str]:
    """The figures of the checks, one block for each threshold."""
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
                f"    worst {c.worst.calibration_error:.3f} ({c.worst.generator}); with "
                f"probabilities right but for unseen shifts it is {median:.3f} in the median, "
                f"{p70:.3f}, {p90:.3f} and {p95:.3f} at 70, 90 and 95 %, and at least as bad as "
                f"this one in {100 * (c.worst.shifted_as_bad or 0):.0f} % of simulations"
            )
        lines.append("    predicted → found:  " + "  ".join(
            f"{100 * s:.0f}→{100 * f:.0f}"
            for s, f in zip(c.curve.said, c.curve.found, strict=True)
        ))  # fmt: skip
    return lines


def _error(part: Any) -> str:
    """The calibration error of a left-out generator, its interval and its floors."""
    text = f"{part.calibration_error:.3f}"
    if part.calibration_error_interval is not None:
        low, high = part.calibration_error_interval
        text += f" ({low:.3f} … {high:.3f})"
    text += f"; perfect {part.floor:.3f}"
    if part.floor_95 is not None:
        text += f", 95 % below {part.floor_95:.3f}"
    if part.shifted_floor is not None:
        text += (
            f"; off by an unseen {1000 * part.shift_sd_ev_per_atom:.0f} meV/atom "
            f"{part.shifted_floor:.3f}, 95 % below {part.shifted_floor_95:.3f}"
        )
    return text


def calibrate(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RESULTS]", help="a table of candidate_id and dft_e_above_hull_ev_per_atom"
        ),
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="the campaign of these candidates")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print what would be learnt, and keep nothing")
    ] = False,
    listed: Annotated[
        bool, typer.Option("--show", help="list the DFT results that were learnt from")
    ] = False,
    forgotten: Annotated[
        list[str] | None,
        typer.Option(
            "--forget", metavar="ID", help="take back the result of a candidate; 'all': every one"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Update the probabilities with your own DFT results.

    RESULTS is Parquet or CSV with a column `candidate_id` and a column
    `dft_e_above_hull_ev_per_atom`, in eV/atom. A later value for a candidate replaces the earlier
    one. The updated calibrator is kept in the home folder and used from then on by all campaigns;
    the data that the shipped calibrator was fitted to are not needed.
    """
    from hullward.agents.followup import forget, kept_results, learn
    from hullward.agents.settings import read_machine

    if (source is not None) + listed + bool(forgotten) != 1:
        raise InputError(
            "calibrate needs one of: a table of RESULTS with --dir DIR, --show, or --forget ID"
        )
    if listed:
        results, notes = kept_results(read_machine().home_folder)
        document = {"results": [one.model_dump(mode="json") for one in results], "notes": notes}
        print_result(document, [*_own_lines(results), *notes], as_json)
    elif forgotten:
        if dry_run:
            raise InputError("--forget has no dry run; `hullward calibrate --show` lists results")
        lines = forget(forgotten, directory)
        print_result({"done": lines}, lines, as_json)
    elif directory is None or source is None:
        raise InputError("name the campaign of these candidates: --dir DIR")
    else:
        with Reporter(quiet=as_json) as reporter:
            answer = learn(source, directory, reporter, dry_run=dry_run)
        print_result(asdict(answer), answer.lines(), as_json)


def _own_lines(results: Sequence[OwnDftResult]) -> list[str]:
    """A table of DFT results, one line each."""
    if not results:
        return ["no DFT results of your own are kept"]
    rows = [
        (
            one.candidate_id, one.formula, f"{one.dft_ev_per_atom:+.3f}",
            f"{one.height_ev_per_atom:+.3f}",
            f"{1000 * (one.dft_ev_per_atom - one.height_ev_per_atom):+.0f}",
            one.since[:10], f"{one.source} ({one.campaign})",
        )
        for one in results
    ]  # fmt: skip
    titles = ("candidate", "formula", "DFT eV/atom", "potential", "gap meV", "learnt", "from")
    widths = [max(len(row[i]) for row in (titles, *rows)) for i in range(len(titles))]
    return [
        "  ".join(
            text.rjust(width) if 2 <= place <= 4 else text.ljust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (titles, *rows)
    ]
