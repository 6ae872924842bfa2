"""`hullward evaluate crystals`: judge a crystal generator by a model or by its saved outputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hullward.agents.cli.options import Device, Json, Seed, ServerUrl, TextForm
from hullward.agents.cli.output import Reporter, print_result, require_writable
from hullward.models.errors import InputError

if TYPE_CHECKING:
    from hullward.models.crystal import Crystal
    from hullward.models.language import LanguageModel, Sampling
    from hullward.models.serving import ServedModel
    from hullward.tools.evaluation import Attempt
    from hullward.tools.records import Wish

PUBLISHED = ("structural", "compositional", "wasserstein_density", "wasserstein_n_elements")

app = typer.Typer(
    name="evaluate", help="Measure a crystal generator or a calibrator.", no_args_is_help=True
)

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="saved outputs (a file, or a folder of CIFs); or a model to sample: 'nano', a "
        "checkpoint folder, or with --url the name of a served one",
    ),
]
Known = Annotated[
    Path | None, typer.Option(help="structures that are not new: a file or a folder of CIFs")
]
Like = Annotated[
    Path | None, typer.Option(help="structures whose density and elements to compare with")
]
Coverage = Annotated[
    bool,
    typer.Option(
        "--coverage",
        help="also measure how many of --like resemble an attempt, and the reverse; takes minutes",
    ),
]
CoverageSample = Annotated[
    int, typer.Option(min=2, help="at most this many of either side, drawn by hash")
]
Screened = Annotated[
    Path | None, typer.Option(help="a directory where `hullward screen` judged the same outputs")
]
Save = Annotated[Path | None, typer.Option(help="file for the outputs of a sampled model")]
Formulas = Annotated[
    Path | None, typer.Option(help="formulas to request, one a line; without it: any crystal")
]
Samples = Annotated[int, typer.Option("-n", min=1, help="samples for each formula")]
Temperature = Annotated[float | None, typer.Option(min=0, help="default: nano's own, else 1")]
TopP = Annotated[float, typer.Option(min=0.01, max=1, help="nucleus sampling")]
MaxTokens = Annotated[int, typer.Option(min=1, help="of one output")]
Form = Annotated[TextForm, typer.Option(help="the text form; only nano knows 'asymmetric'")]
Grammar = Annotated[bool, typer.Option("--grammar", help="constrain the model to the text form")]
MinDistance = Annotated[
    float | None, typer.Option(help="with the grammar: no two atoms closer than this, Å")
]


@app.command()
def crystals(
    source: Source,
    known: Known = None,
    like: Like = None,
    coverage: Coverage = False,
    coverage_sample: CoverageSample = 1000,
    screened: Screened = None,
    save: Save = None,
    formulas: Formulas = None,
    samples: Samples = 1,
    temperature: Temperature = None,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = 512,
    seed: Seed = 0,
    form: Form = TextForm.CELL,
    grammar: Grammar = False,
    min_distance: MinDistance = None,
    url: ServerUrl = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Judge the crystals of a generator; every rate divides by all attempts.

    For stability, run `hullward screen FILE --relax-known --dir DIR` first and give --screened DIR.
    """
    from hullward.models.language import Sampling
    from hullward.tools.evaluation import read_attempts

    if coverage and like is None:
        raise InputError("--coverage needs structures to compare with: give them with --like FILE")
    require_writable(save)
    sampling = Sampling(
        temperature=_temperature(temperature, source), top_p=top_p, max_tokens=max_tokens, seed=seed
    )
    with Reporter(quiet=as_json) as reporter:
        path = _checkpoint(source) if url is None else Path(source)
        if url is not None or (path / "config.json").is_file():
            if save is None:
                raise InputError("a sampled model needs a file for its outputs: --save FILE.jsonl")
            _sample(
                open_model(source, url, device), save, formulas, samples, sampling, reporter,
                form=form.value, grammar=grammar or min_distance is not None,
                min_distance_a=min_distance,
            )  # fmt: skip
            path = save
        attempts = read_attempts(path)
        if not attempts:
            raise InputError(f"{path} holds no attempt to judge")
        found = _measure(attempts, known, like, coverage_sample if coverage else None, reporter)
    document: dict[str, Any] = {"source": str(path), **_plain(found)}
    if screened is not None:
        document["screened"] = _screened(screened, path, [a.wish for a in attempts])
    published = files("hullward.data").joinpath("published_generators.json")
    document["published"] = json.loads(published.read_text(encoding="utf-8"))
    print_result(document, _lines(document), as_json)


def _sample(
    model: LanguageModel,
    save: Path,
    formulas: Path | None,
    samples: int,
    sampling: Sampling,
    progress: Reporter,
    **how: Any,
) -> None:
    """Write outputs of a model to `save`, for each formula of a file or for any crystal."""
    from hullward.tools.evaluation import read_formulas, sample_crystals

    targets: list[str | None] = [*read_formulas(formulas)] if formulas else [None]
    sample_crystals(
        model, save, formulas=targets, samples=samples, sampling=sampling, progress=progress, **how
    )


def _measure(
    attempts: Sequence[Attempt],
    known: Path | None,
    like: Path | None,
    coverage_sample: int | None,
    progress: Reporter,
) -> dict[str, Any]:
    """The rates of the attempts; coverage too where a sample size is given."""
    from hullward.tools.crystal import StructureLibrary
    from hullward.tools.evaluation import evaluate, measure_coverage
    from hullward.tools.relax import default_workers

    library = None
    if known is not None:
        library = StructureLibrary((f"known-{i}", c) for i, c in enumerate(_structures(known)))
    others = _structures(like) if like is not None else []
    found = evaluate(attempts, known=library, like=others, progress=progress)
    if coverage_sample is not None:
        found["coverage"] = measure_coverage(
            attempts, others, sample=coverage_sample, workers=default_workers(), progress=progress
        )
    return found


def _checkpoint(source: str) -> Path:
    """The folder of the model that comes with Hullward, or the path as given."""
    from hullward.models.language import NANO, nano_folder

    return nano_folder() if source in ("nano", NANO) else Path(source)


def _temperature(given: float | None, source: str) -> float:
    from hullward.models.language import NANO, NANO_SAMPLING

    if given is not None:
        return given
    return NANO_SAMPLING.temperature if source in ("nano", NANO) else 1.0


def open_model(source: str, url: str | None, device: str | None) -> LanguageModel:
    """Open nano, a checkpoint folder, or with a URL the served model of that name.

    Raises InputError or PreflightError where it cannot be used.
    """
    if url is None:
        from hullward.agents.settings import read_machine
        from hullward.models.devices import torch_devices
        from hullward.models.language import LocalModel

        where = torch_devices(read_machine(device).device_for())[0]
        return LocalModel(_checkpoint(source), device=where)
    return open_served(url, source)


def open_served(url: str, name: str) -> ServedModel:
    """Open the model of that name on a server, with the key of the environment.

    Raises InputError for a wrong URL, PreflightError where it cannot be used.
    """
    from hullward.agents.settings import check_url, read_machine
    from hullward.models.serving import ServedModel

    try:
        check_url(url, "crystal")
    except ValueError as error:
        raise InputError(f"--url {url}: {error}") from None
    key = read_machine().crystal_api_key
    served = ServedModel(url, name, api_key=key.get_secret_value() if key else None)
    served.check()
    return served


def _structures(path: Path) -> list[Crystal]:
    """The crystals of a file or folder; raises InputError where none can be read."""
    from hullward.models.crystal import Crystal
    from hullward.tools.evaluation import read_attempts

    found = [a.found for a in read_attempts(path) if isinstance(a.found, Crystal)]
    if not found:
        raise InputError(f"{path} holds no structure that can be read")
    return found


def _screened(directory: Path, path: Path, wishes: Sequence[Wish]) -> dict[str, Any]:
    """The counts of a screening of the same file; raises InputError for another file."""
    from hullward.tools.evaluation import adherence_to_height
    from hullward.tools.store import funnel, open_snapshot

    with open_snapshot(directory) as connection:
        counting = funnel.count(connection)
        adherence = adherence_to_height(connection, wishes)
    if counting.proposed != len(wishes):
        raise InputError(
            f"{directory} screened {counting.proposed} proposals, but {path} holds {len(wishes)}: "
            f"screen this file with `hullward screen {path} --dir NEW_DIR`"
        )
    return {**counting.as_dict(), "e_above_hull_adherence": _plain(adherence)}


def _plain(value: Any) -> Any:
    """The value with every Rate as a plain dict."""
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
        ("adherence, of the attempts with such a wish", document["adherence"]),
        ("of those that parsed (as published)", document["of_those_that_parsed"]),
        ("of the valid", document["of_the_valid"]),
    )
    for title, shares in sections:
        if shares:
            lines.append(f"{title}:")
            lines += [f"    {name:<40}{_share(share)}" for name, share in shares.items()]
    for name in ("wasserstein", "wasserstein_of_all_parsed"):
        if distances := document.get(name):
            values = ", ".join(f"{what} {_number(value)}" for what, value in distances.items())
            lines.append(f"{name.replace('_', ' ')}: {values}")
    if coverage := document.get("coverage"):
        lines += _coverage_lines(coverage)
    if failures := document["parse_failures"]:
        reasons = ", ".join(f"{n} {reason}" for reason, n in failures.items())
        lines.append(f"did not parse: {reasons}")
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
        f"coverage of {sample['like']} structures ({missing['like']} without fingerprint) by "
        f"{sample['attempts']} attempts ({missing['attempts']}); 'separately' is as published:"
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
