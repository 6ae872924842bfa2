"""The training engine on tiny models: it learns, resumes exactly, refuses what does not fit."""

import json
import math
import shutil

import pytest

from hullward.models.errors import InputError, PreflightError
from hullward.tools.crystal.text import parse_asymmetric_text, parse_cell_text
from hullward.training.crystal_export import export_generator
from hullward.training.crystals import (
    CrystalRecipe,
    CrystalTask,
    example,
    nano_tokenizer,
)
from hullward.training.crystals.corpus import corpus_row
from hullward.training.crystals.examples import Mixture
from hullward.training.crystals.task import new_model
from hullward.training.crystals.tokenizer import vocabulary
from hullward.training.engine import (
    Shape,
    TrainingError,
    checkpoints,
    encode,
    estimate_cost,
    trainer,
)
from hullward.training.engine.batches import batch_tensors, plan_epoch

# pymatgen sorts formulas by electronegativity and remarks on elements that have none
pytestmark = [
    pytest.mark.filterwarnings("ignore:No Pauling electronegativity:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def rock_salt(metal, anion, a):
    """A row of the corpus; a: edge of the cube, Å."""
    crystal = parse_asymmetric_text(f"225\n{metal} 4 4a\n{anion} 4 4b\n{a:.1f}")
    return corpus_row(f"{metal}{anion}", crystal, 0.0)


ROWS = [
    rock_salt(metal, anion, a + b)
    for metal, a in (("Li", 2.6), ("Na", 3.0), ("K", 3.6), ("Rb", 3.9))
    for anion, b in (("F", 1.5), ("Cl", 2.5), ("Br", 2.9))
]
TINY = Shape(width=32, layers=2, heads=2, hidden=48, context=128)


def recipe(**changes):
    given = {
        "name": "tiny",
        "shape": TINY,
        "mixture": {"asymmetric": 0.7, "infill": 0.2, "formula": 0.8},
        "epochs": 3,
        "max_tokens": 128,
        "batch_tokens": 128,
        "learning_rate": 3e-3,
        "warmup_steps": 2,
        "precision": "no",
        "seed": 1,
    }
    return CrystalRecipe.model_validate(given | changes)


def task(given, corpus="corpus"):
    return CrystalTask(given, ROWS, ROWS[:2], corpus)


def run(given, out, **more):
    lines = []
    done = trainer.train(task(given), out, log=lines.append, **more)
    return done, lines


def weights(folder):
    from safetensors.torch import load_file

    [path] = folder.glob("*model.safetensors")
    return load_file(path)


def same(left, right):
    a, b = weights(left), weights(right)
    return a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run from start to end."""
    done, lines = run(recipe(), tmp_path_factory.mktemp("run"))
    return done, lines


def test_it_learns(trained):
    _, lines = trained
    losses = [float(line.rsplit(" ", 1)[1]) for line in lines if "validation loss" in line]
    assert len(losses) == 3
    assert losses[-1] < losses[0] < math.log(len(vocabulary()))


@pytest.mark.parametrize("stopped_after", [2, 5])
def test_a_stopped_run_resumes_as_if_it_had_never_stopped(trained, tmp_path, stopped_after):
    run(recipe(), tmp_path, stop=lambda progress: progress.step == stopped_after)
    done, lines = run(recipe(), tmp_path)
    assert f"going on at step {stopped_after}" in lines[0]
    assert same(done, trained[0])


def test_packed_examples_attend_only_to_themselves():
    import torch

    tokenizer = nano_tokenizer()
    model, _ = new_model(TINY, 0)
    model.eval()
    some = [encode(example(row, Mixture(asymmetric=1), 0, 0, i), tokenizer)
            for i, row in enumerate(ROWS[:3])]  # fmt: skip
    packed = batch_tensors([some], 0)
    alone = batch_tensors([[one] for one in some], 0)
    with torch.no_grad():
        a = model(**packed).loss
        b = model(**alone).loss
    assert float(a) == pytest.approx(float(b), rel=1e-5)
    assert (packed["labels"] != -100).sum() == (alone["labels"] != -100).sum()


def test_only_the_answer_is_learnt_unless_the_recipe_includes_the_prompt():
    tokenizer = nano_tokenizer()
    shown = example(ROWS[0], Mixture(asymmetric=1), 0, 0, 0)
    one = encode(shown, tokenizer)
    labels = batch_tensors([[one]], 0)["labels"][0]
    learnt = tokenizer.decode(labels[labels != -100].tolist(), skip_special_tokens=True)
    assert learnt == shown.answer
    whole = encode(example(ROWS[0], Mixture(asymmetric=1, learn_prompt=True), 0, 0, 0), tokenizer)
    assert (batch_tensors([[whole]], 0)["labels"] != -100).sum() == len(whole.ids) - 1


@pytest.mark.parametrize("batching", ["bucket", "pack"])
def test_an_epoch_has_every_example_once_and_respects_the_token_limits(batching):
    lengths = [5 + (7 * i) % 40 for i in range(200)] + [500]
    given = recipe(batch_tokens=128, batching=batching, max_tokens=64, seed=1)
    batches = plan_epoch(lengths, given, epoch=0)
    shown = [i for batch in batches for row in batch for i in row]
    assert sorted(shown) == list(range(200))  # the one of 500 tokens never fits
    for batch in batches:
        longest = max(sum(lengths[i] for i in row) for row in batch)
        assert longest <= 64
        assert len(batch) == 1 or len(batch) * longest <= 128
    assert plan_epoch(lengths, given, epoch=1) != batches


@pytest.mark.parametrize("row", ROWS[:2])
def test_the_tokenizer_returns_every_text_unchanged(row):
    tokenizer = nano_tokenizer()
    mixture = Mixture(asymmetric=0.5, infill=0.3, formula=0.5, elements=1, e_above_hull=1)
    for epoch in range(8):
        shown = example(row, mixture, 0, epoch, 0)
        ids = tokenizer.encode(shown.prompt + shown.answer)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == shown.prompt + shown.answer


def test_examples_repeat_within_an_epoch_and_differ_between_epochs():
    mixture = Mixture(random_translation=True, sort_sites=False, space_group=0.5)
    first = [example(ROWS[0], mixture, 3, 0, 0) for _ in range(2)]
    assert first[0] == first[1]
    assert example(ROWS[0], mixture, 3, 1, 0) != first[0]


@pytest.mark.parametrize("cell", ["standard", "niggli"])
def test_every_choice_of_cell_is_the_same_crystal(cell):
    from pymatgen.analysis.structure_matcher import StructureMatcher

    mixture = Mixture(cell=cell, random_translation=True, sort_sites=False, infill=0)
    shown = parse_cell_text(example(ROWS[1], mixture, 0, 0, 0).answer)
    truth = parse_cell_text(ROWS[1].cell_text)
    assert StructureMatcher().fit(shown.to_structure(), truth.to_structure())


def test_a_checkpoint_of_another_recipe_or_corpus_is_refused(trained, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(trained[0], out / trained[0].name)
    with pytest.raises(TrainingError, match=r"another recipe \(it differs in learning_rate\)"):
        run(recipe(learning_rate=1e-3), out)
    with pytest.raises(TrainingError, match="another corpus"):
        trainer.train(task(recipe(), corpus="other"), out)


def test_a_damaged_checkpoint_is_named(trained, tmp_path):
    out = tmp_path / "out"
    copy = shutil.copytree(trained[0], out / trained[0].name)
    (copy / "optimizer.safetensors").write_bytes(b"x")
    with pytest.raises(TrainingError, match=r"optimizer.safetensors is damaged or missing"):
        run(recipe(), out)


def test_a_loss_that_is_not_finite_stops_and_names_the_last_good_checkpoint(tmp_path):
    stopped, _ = run(recipe(), tmp_path, stop=lambda progress: progress.step == 2)
    before = weights(stopped)
    step = trainer._step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_step", lambda *a: (float("nan"), step(*a)[1]))
        with pytest.raises(TrainingError, match=r"loss is nan at step 2; .*step-000002"):
            run(recipe(), tmp_path)
    assert checkpoints.latest(tmp_path) == stopped
    assert all((weights(stopped)[k] == before[k]).all() for k in before)


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    stopped, _ = run(recipe(), tmp_path, stop=lambda progress: progress.step == 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(TrainingError, match=r"No space left.*last good checkpoint: .*step-000001"):
        run(recipe(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [stopped.name]


def test_adapters_train_on_a_frozen_base_and_resume_exactly(trained, tmp_path):
    lora = {"r": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj", "v_proj"]}
    given = recipe(shape=None, base=str(trained[0]), lora=lora, epochs=1, learning_rate=1e-2)
    whole, _ = run(given, tmp_path / "whole")
    run(given, tmp_path / "parts", stop=lambda progress: progress.step == 1)
    parts, _ = run(given, tmp_path / "parts")
    assert same(whole, parts)
    assert {k.rsplit(".", 2)[1] for k in weights(whole)} == {"lora_A", "lora_B"}
    assert any(bool(w.any()) for k, w in weights(whole).items() if "lora_B" in k)


def test_all_weights_of_a_base_train_with_packing(trained, tmp_path):
    given = recipe(shape=None, base=str(trained[0]), batching="pack", epochs=1, accumulate=2)
    done, _ = run(given, tmp_path)
    assert not same(done, trained[0])


def test_a_tokenizer_that_does_not_fit_its_model_is_refused(trained, tmp_path):
    copy = shutil.copytree(trained[0], tmp_path / "base")
    tokenizer = nano_tokenizer()
    tokenizer.add_tokens([f"<{n}>" for n in range(5)])
    tokenizer.save_pretrained(copy)
    with pytest.raises(PreflightError, match="do not fit"):
        run(recipe(shape=None, base=str(copy)), tmp_path / "out")


def test_a_plan_counts_and_writes_nothing(tmp_path):
    found = estimate_cost(task(recipe()), operations_per_s=1e9)
    assert found.examples == len(ROWS)
    assert found.weights == found.trained_weights
    assert found.learnt_tokens < found.tokens
    assert found.seconds == pytest.approx(found.operations / 1e9)
    assert found.operations > 6 * found.weights * found.tokens
    measured = estimate_cost(task(recipe()))
    assert measured.seconds > 0
    assert not list(tmp_path.iterdir())


RECIPE_FLAWS = [
    ({"base": "x"}, "either base"),
    ({"lora": {"r": 8}}, "lora needs a base"),
    ({"mixture": {"asymetric": 1}}, "mixture"),
    ({"mixture": {"formula": 2}}, "share of 0 to 1"),
    ({"max_tokens": 4096}, "exceed the context"),
    ({"learning_rat": 1}, "learning_rat"),
]


@pytest.mark.parametrize(("change", "words"), RECIPE_FLAWS)
def test_the_error_names_what_is_wrong_in_a_recipe(tmp_path, change, words):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe().model_dump(mode="json") | change))
    with pytest.raises(InputError, match=words):
        CrystalRecipe.read(path)


def test_the_recipes_in_the_data_are_valid():
    from importlib.resources import files

    for path in (files("hullward.data") / "recipes").iterdir():
        assert CrystalRecipe.read(path).name
    llamat = CrystalRecipe.read(files("hullward.data") / "recipes" / "llamat-2-cif.yaml")
    assert (llamat.lora.r, llamat.lora.alpha, llamat.lora.dropout) == (8, 32, 0.05)


def test_an_export_loads_and_lists_what_it_learnt(trained, tmp_path):
    from hullward.models.language import LocalModel, Request, Sampling
    from hullward.tools.screening import learnt_formulas
    from hullward.tools.screening.training_overlap import learnt_ids

    run_folder = tmp_path / "run"
    shutil.copytree(trained[0], run_folder / trained[0].name)
    out = tmp_path / "model"
    export_generator(run_folder, out, ROWS)
    model = LocalModel(out)
    [[completion]] = model.complete(
        [Request(request_id="a", prompt="Below", sampling=Sampling(max_tokens=5))]
    )
    assert completion.completion_tokens <= 5
    assert learnt_ids(out, ["NaCl", "mp-1"]) == [True, False]
    assert learnt_formulas(out, ["KBr", "CsI"]) == [True, False]
    assert not {p.name for p in out.iterdir()} & {"optimizer.safetensors", "state.json"}
    (out / "learnt_ids.npy").unlink()
    with pytest.raises(InputError, match="what was learnt is unknown"):
        learnt_ids(out, ["NaCl"])


def test_exported_adapters_are_merged(trained, tmp_path):
    lora = {"r": 4, "alpha": 8, "targets": ["q_proj"]}
    given = recipe(shape=None, base=str(trained[0]), lora=lora, epochs=1, learning_rate=1e-2)
    run(given, tmp_path / "run")
    export_generator(tmp_path / "run", tmp_path / "model", ROWS, "float32")
    changed = [k for k, w in weights(tmp_path / "model").items()
               if not bool((w == weights(trained[0])[k]).all())]  # fmt: skip
    assert changed
    assert all("q_proj" in name for name in changed)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epochs: yes", "line 2: `epochs`: .*'yes'.*: write a whole number"),
        ("epochs: true", "line 2: `epochs`: .*found true"),
        ("learning_rate: .inf", "line 2: `learning_rate`: .*finite number"),
        ("name: again", "line 2: key `name` again, after line 1"),
    ],
)
def test_a_recipe_is_read_as_its_author_means_it_or_refused(tmp_path, line, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: r\n{line}\nshape: {{}}\n")
    with pytest.raises(InputError, match=rf"recipe\.yaml: {message}"):
        CrystalRecipe.read(path)
