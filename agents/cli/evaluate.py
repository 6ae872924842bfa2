"""Judging crystal generators: a model, a server, or outputs that somebody saved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hullward.agents.cli.output import Json, tell
from hullward.agents.cli.progress import Reporter
from hullward.models.errors import InputError

if TYPE_CHECKING:
    from hullward.models.crystal import Crystal
    from hullward.models.language import LanguageModel
    from hullward.tools.crystal import StructureLibrary
    from hullward.tools.evaluation import Wish

PUBLISHED = ("structural", "compositional", "wasserstein_density", "wasserstein_n_elements")


class TextForm(StrEnum):
    """Which text a model is asked for."""

    CELL = "cell"
    ASYMMETRIC = "asymmetric"


evaluate = typer.Typer(
    name="evaluate", help="Measure how good a part of this is.", no_args_is_help=True
)


@evaluate.command()
def crystals(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="saved outputs (a file, or a folder of CIFs); or a model to sample: 'nano', a "
            "checkpoint folder, or with --url the name of a served one",
        ),
    ],
    known: Annotated[
        Path | None, typer.Option(help="structures that are not new: a file or a folder of CIFs")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(help="structures whose density and elements to compare with")
    ] = None,
    coverage: Annotated[
        bool,
        typer.Option(
            "--coverage",
            help="also how many of --like some attempt is like, and the reverse; takes minutes",
        ),
    ] = False,
    coverage_sample: Annotated[
        int, typer.Option(min=2, help="at most so many of either side, drawn by hash")
    ] = 1000,
    screened: Annotated[
        Path | None,
        typer.Option(help="a directory where `hullward screen` judged the same outputs"),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="where a model's outputs are written")] = None,
    formulas: Annotated[
        Path | None, typer.Option(help="ask a model for these, one a line; else for any crystal")
    ] = None,
    samples: Annotated[int, typer.Option("-n", min=1, help="of a model, for each formula")] = 1,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="default: nano's own, else 1")
    ] = None,
    top_p: Annotated[float, typer.Option(min=0.01, max=1)] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1)] = 512,
    seed: int = 0,
    form: Annotated[
        TextForm, typer.Option(help="the text asked for; only nano knows 'asymmetric'")
    ] = TextForm.CELL,
    grammar: Annotated[bool, typer.Option("--grammar", help="hold the model to the form")] = False,
    min_distance: Annotated[
        float | None, typer.Option(help="with the grammar: no atoms closer than this, Å")
    ] = None,
    url: Annotated[str | None, typer.Option(help="an OpenAI-compatible server, with /v1")] = None,
    device: Annotated[str, typer.Option(help="for a checkpoint: cpu, cuda, …")] = "cpu",
    as_json: Json = False,
) -> None:
    """Judge crystals that a generator wrote; every rate divides by all attempts.

    Stability comes from `hullward screen FILE --relax-known --dir DIR`, given as --screened DIR.
    """
    from hullward.models.language import Sampling
    from hullward.tools.crystal import StructureLibrary
    from hullward.tools.evaluation import evaluate as measure
    from hullward.tools.evaluation import read_attempts, read_formulas, sample_crystals

    if coverage and like is None:
        raise InputError("--coverage needs structures to compare with: give them with --like FILE")
    with Reporter(quiet=as_json) as reporter:
        path = _checkpoint(source) if url is None else Path(source)
        if url is not None or (path / "config.json").is_file():
            if save is None:
                raise InputError("say where a model's outputs are written with --save FILE.jsonl")
            asked: list[str | None] = [*read_formulas(formulas)] if formulas else [None]
            sample_crystals(
                open_model(source, url, device),
                save,
                formulas=asked,
                samples=samples,
                sampling=Sampling(
                    temperature=_temperature(temperature, source),
                    top_p=top_p,
                    max_tokens=max_tokens,
                    seed=seed,
                ),
                form=form.value,
                grammar=grammar or min_distance is not None,
                min_distance_a=min_distance,
                progress=reporter,
            )
            path = save
        attempts = read_attempts(path)
        if not attempts:
            raise InputError(f"{path} holds no attempt to judge")
        library: StructureLibrary | None = None
        if known is not None:
            library = StructureLibrary((f"known-{i}", c) for i, c in enumerate(_structures(known)))
        others = _structures(like) if like is not None else []
        found = measure(attempts, known=library, like=others, progress=reporter)
        if coverage:
            from hullward.tools.evaluation import measure_coverage as covered
            from hullward.tools.relax import default_workers

            found["coverage"] = covered(
                attempts,
                others,
                sample=coverage_sample,
                workers=default_workers(),
                progress=reporter,
            )
    document: dict[str, Any] = {"source": str(path), **_plain(found)}
    if screened is not None:
        document["screened"] = _screened(screened, path, [a.wish for a in attempts])
    document["published"] = json.loads(
        files("hullward.data").joinpath("published_generators.json").read_text(encoding="utf-8")
    )
    tell(document, _lines(document), as_json)


def _checkpoint(source: str) -> Path:
    """The folder of the model that comes with Hullward, or the path as it stands."""
    from hullward.models.language import NANO, nano_folder

    return nano_folder() if source in ("nano", NANO) else Path(source)


def _temperature(given: float | None, source: str) -> float:
    from hullward.models.language import NANO, NANO_SAMPLING

    if given is not None:
        return given
    return NANO_SAMPLING.temperature if source in ("nano", NANO) else 1.0


def open_model(source: str, url: str | None, device: str) -> LanguageModel:
    """nano, the checkpoint in a folder, or with a URL the model of that name behind it.

    Raises PreflightError where it cannot be used.
    """
    if url is None:
        from hullward.models.language import LocalModel

        return LocalModel(_checkpoint(source), device=device)
    from hullward.agents.settings import read_machine
    from hullward.models.serving import ServedModel

    key = read_machine().crystal_api_key
    served = ServedModel(url, source, api_key=key.get_secret_value() if key else None)
    served.check()
    return served


def _structures(path: Path) -> list[Crystal]:
    """Crystals of a file of known ones; InputError where none can be read."""
    from hullward.models.crystal import Crystal
    from hullward.tools.evaluation import read_attempts

    found = [a.found for a in read_attempts(path) if isinstance(a.found, Crystal)]
    if not found:
        raise InputError(f"{path} holds no structure that can be read")
    return found


def _screened(directory: Path, path: Path, wishes: Sequence[Wish]) -> dict[str, Any]:
    """Counts of a screening of the same file; InputError where it is of another one."""
    from hullward.tools.evaluation import adherence_to_height
    from hullward.tools.store import funnel, open_snapshot

    with open_snapshot(directory) as connection:
        counting = funnel.count(connection)
        adherence = adherence_to_height(connection, wishes)
    if counting.proposed != len(wishes):
        raise InputError(
            f"{directory} screened {counting.proposed} proposals and {path} holds {len(wishes)}: "
            "screen this file"
        )
    return {**counting.as_dict(), "e_above_hull_adherence": _plain(adherence)}


def _plain(value: Any) -> Any:
    """Shares as plain dicts."""
    from hullward.tools.evaluation import Rate

    if isinstance(value, Rate):
        return value.as_dict()
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return value


def _lines(document: dict[str, Any]) -> list[str]:
    lines = [f"{document['attempts']} attempts"]
    sections = (
        ("of all attempts", document["rates"]),
        ("adherence, of all that asked", document["adherence"]),
        ("of those that parsed (as published)", document["of_those_that_parsed"]),
        ("of the valid", document["of_the_valid"]),
    )
    for title, shares in sections:
        if shares:
            lines.append(f"{title}:")
            lines += [f"    {name:<40}{_share(share)}" for name, share in shares.items()]
    for name in ("wasserstein", "wasserstein_of_all_parsed"):
        if distances := document.get(name):
            told = ", ".join(f"{what} {_number(value)}" for what, value in distances.items())
            lines.append(f"{name.replace('_', ' ')}: {told}")
    if coverage := document.get("coverage"):
        lines += _coverage_lines(coverage)
    if failures := document["parse_failures"]:
        told = ", ".join(f"{n} {reason}" for reason, n in failures.items())
        lines.append(f"did not parse: {told}")
    if screened := document.get("screened"):
        counts = ", ".join(f"{n} {what}" for what, n in screened["funnel"].items())
        lines.append(f"screened: {counts}")
        for name, share in screened["e_above_hull_adherence"].items():
            lines.append(f"    {name:<40}{_share(share)}")
    lines.append(f"{'published (other protocols, see --json)':<44}" + "  ".join(PUBLISHED))
    for row in document["published"]["rows"]:
        numbers = "  ".join(f"{_number(row.get(k)):>{len(k)}}" for k in PUBLISHED)
        lines.append(f"    {row['model']:<40}{numbers}")
    return lines


def _coverage_lines(coverage: dict[str, Any]) -> list[str]:
    sample, missing = coverage["sample"], coverage["without_fingerprint"]
    lines = [
        f"coverage, {sample['attempts']} attempts ({missing['attempts']} without fingerprint) and "
        f"{sample['like']} like them ({missing['like']}); 'separately' is as published:"
    ]
    parts = {"of all": coverage["of_all"], "of the valid": coverage["of_the_valid"]}
    parts |= {f"control, {name}": shares for name, shares in coverage["controls"].items()}
    for title, shares in parts.items():
        lines.append(f"    {title.replace('_', ' ')}:")
        lines += [f"        {name:<36}{_share(share)}" for name, share in shares.items()]
    return lines


def _share(share: dict[str, Any]) -> str:
    value = share["share"]
    percent = "—" if value is None else f"{100 * value:.1f} %"
    return f"{percent:>8}  ({share['count']} of {share['of']})"


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"
