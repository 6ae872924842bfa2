"""A corpus holds what may be learnt, counts the rest, and is refused where it was changed."""

import pandas as pd
import pytest

from hullward.models.crystal import Crystal
from hullward.models.errors import InputError
from hullward.training.crystals import read_corpus
from hullward.training.crystals.corpus import build_corpus, may_be_learnt

pytestmark = [
    pytest.mark.filterwarnings("ignore:No Pauling electronegativity:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def cif(metal, anion):
    half = [[0, 0, 0], [0.5, 0.5, 0.5]]
    crystal = Crystal.from_parameters((4.1,) * 3, (90,) * 3, [metal, anion], half)
    return str(crystal.to_structure().to(fmt="cif"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(counts, folder) of a corpus from four rows."""
    rows = [("mp-1", "Cs", "Cl", 0.01), ("mp-1", "Cs", "Br", 0.0), ("mp-2", "Mn", "O", 0.0)]
    rows += [("mp-3", "K", "Cl", None)]
    table = pd.DataFrame(
        [(name, cif(metal, anion), height) for name, metal, anion, height in rows],
        columns=["material_id", "cif", "e_above_hull"],
    )
    folder = tmp_path_factory.mktemp("corpus")
    table.to_parquet(folder / "table.parquet")
    return build_corpus(folder / "table.parquet", folder / "out"), folder / "out"


def test_a_material_enters_once_and_quarantine_stays_out(corpus):
    about, _ = corpus
    assert may_be_learnt("CsCl")
    assert may_be_learnt("KCl")
    assert about["left_out"] == {"same material id": 1, "quarantine": 1}
    assert about["train"]["rows"] == 2


def test_rows_read_back_with_unknown_heights(corpus):
    known, unknown = read_corpus(corpus[1], "train")
    assert (known.formula, known.e_above_hull_ev_per_atom) == ("CsCl", 0.01)
    assert (unknown.formula, unknown.e_above_hull_ev_per_atom) == ("KCl", None)
    assert known.space_group == 221
    assert known.n_sites == 2


def test_a_changed_or_missing_corpus_is_refused(corpus, tmp_path):
    with pytest.raises(InputError, match=r"no corpus at .*; make one: python -m hullward"):
        read_corpus(tmp_path, "train")
    (corpus[1] / "validation.parquet").write_bytes(b"x")
    with pytest.raises(InputError, match="is damaged"):
        read_corpus(corpus[1], "validation")


def test_a_table_without_a_column_is_refused(tmp_path):
    pd.DataFrame({"cif": []}).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(InputError, match="no column material_id"):
        build_corpus(tmp_path / "table.parquet", tmp_path)
