"""The crystal model that comes with Hullward: it loads, writes crystals, and learnt no secret."""

import hashlib
import json

import pandas as pd
import pytest

from hullward.agents.followup.after_judging import model_folder
from hullward.models.crystal import Crystal
from hullward.models.language import (
    NANO_SAMPLING,
    LocalModel,
    Request,
    Sampling,
    checkpoint_name,
    crystal_prompt,
    flat_formula,
    nano_folder,
)
from hullward.tools.crystal.text import parse_asymmetric_text, parse_cell_text
from hullward.tools.screening import learnt_formulas
from hullward.tools.screening.training_overlap import learnt_ids
from hullward.training.crystals import in_quarantine

# pymatgen sorts formulas by electronegativity and remarks on elements that have none
pytestmark = [
    pytest.mark.filterwarnings("ignore:No Pauling electronegativity:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def nano():
    return LocalModel(nano_folder())


def ask(nano, prompts):
    """One text a prompt."""
    sampling = Sampling(
        temperature=NANO_SAMPLING.temperature, max_tokens=NANO_SAMPLING.max_tokens, seed=5
    )
    requests = [
        Request(request_id=str(i), prompt=prompt, sampling=sampling)
        for i, prompt in enumerate(prompts)
    ]
    return [answer[0].text for answer in nano.complete(requests)]


def test_its_files_are_small_and_those_its_export_wrote():
    folder = nano_folder()
    about = json.loads((folder / "training.json").read_text())
    for name, digest in about["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
    assert (folder / "model.safetensors").stat().st_size <= 8e6
    assert not [p for p in folder.iterdir() if p.suffix in {".py", ".bin", ".pt", ".pkl"}]


def test_it_needs_no_code_of_ours():
    config = json.loads((nano_folder() / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "auto_map" not in config


# None of them is in quarantine: the benchmark covers those.
ASKED = ("SrTiO3", "CsCl", "ZnS", "GaN", "ZrNiSn", "CaF2", "KMnF3", "Mg2Si", "BaSnO3", "ScN")


def test_it_writes_crystals_of_the_formula_it_is_asked_for(nano):
    prompts = [crystal_prompt(formula=flat_formula(f), form="asymmetric") for f in ASKED]
    found = [parse_asymmetric_text(text) for text in ask(nano, prompts)]
    right = [
        isinstance(c, Crystal) and flat_formula(c.formula) == flat_formula(f)
        for c, f in zip(found, ASKED, strict=True)
    ]
    assert sum(right) >= 8


def test_it_obeys_a_space_group(nano):
    prompt = crystal_prompt(formula="SrTiO3", space_group=221, form="asymmetric")
    texts = ask(nano, [prompt] * 3)
    assert [text.split("\n")[0] for text in texts] == ["221"] * 3


def test_it_knows_llamats_text_form_too(nano):
    texts = ask(nano, [crystal_prompt(formula=f) for f in ("CsCl", "ScN", "GaN", "SrTiO3")])
    found = [parse_cell_text(text) for text in texts]
    assert sum(isinstance(c, Crystal) for c in found) >= 3


def test_it_has_seen_nothing_of_the_quarantine():
    from importlib.resources import files

    table = pd.read_parquet(
        str(files("hullward.data") / "reference_embedded.parquet"), columns=["formula"]
    )
    formulas = sorted(set(table.formula))
    systems = ["-".join(sorted(parts(f))) for f in formulas]
    kept = [f for f, s in zip(formulas, systems, strict=True) if in_quarantine(f, s)]
    rest = sorted(set(formulas) - set(kept))
    assert len(kept) > 100
    assert not any(learnt_formulas(nano_folder(), [flat_formula(f) for f in kept]))
    assert sum(learnt_formulas(nano_folder(), [flat_formula(f) for f in rest])) > 100


def test_it_has_seen_no_quarantined_structure_of_the_given_data(shared_data):
    table = pd.read_parquet(
        shared_data / "structures" / "mp_structures.parquet",
        columns=["material_id", "formula", "chemsys"],
    )
    held = [in_quarantine(f, s) for f, s in zip(table.formula, table.chemsys, strict=True)]
    kept = table[held]
    assert len(kept) > 2000
    assert not any(learnt_ids(nano_folder(), list(kept.material_id)))
    seen = learnt_ids(nano_folder(), list(table.material_id))
    assert sum(seen) > 20_000


def parts(formula):
    from pymatgen.core import Composition

    return [element.symbol for element in Composition(formula)]


def test_what_it_proposed_is_audited_by_its_own_hashes():
    name = checkpoint_name(nano_folder())
    assert model_folder(name) == nano_folder()
    assert model_folder(f"{name}0") is None
