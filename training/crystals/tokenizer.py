"""The nano model's tokenizer: one token for every number, element and sentence of crystal text.

Pieces include the blank or newline before them, so that decoding only joins them and returns every
text of both forms unchanged. The vocabulary follows a rule and does not depend on a corpus. Unknown
text becomes '[UNK]', which no crystal text contains. It is a plain PreTrainedTokenizerFast and
needs no code of ours to load.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from hullward.models import wyckoff
from hullward.models.language import crystal_prompts as words
from hullward.models.potential import MPTRJ_ELEMENTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")
SENTENCES = (
    words.OPENING, words.CELL, words.ASYMMETRIC, words.FORMULA, words.ELEMENTS, words.E_HULL,
    words.SPACE_GROUP, words.INFILL, words.INFILL_ASK, ". ", ", ", "\n" + words.MASK,
)  # fmt: skip
LONGEST_A = 59.9  # Å; longer cells are not learnt

_PIECES = r"\n[A-Z][a-z]?|[A-Z][a-z]?|[\n ]?[0-9]+\.[0-9]+| [0-9]+[a-zA]|[\n ]?[0-9]+"


def vocabulary() -> list[str]:
    """Every token, in the order of their ids."""
    fractions = [f"{n / 100:.2f}" for n in range(100)]
    lengths = [f"{n / 10:.1f}" for n in range(10, round(10 * LONGEST_A) + 1)]
    sites = {p.name for number in range(1, 231) for p in wyckoff.positions(number).values()}
    elements = sorted(MPTRJ_ELEMENTS)
    return [
        *SPECIAL,
        *SENTENCES,
        *(str(n) for n in range(231)),  # space groups, counts of a formula
        *(f" {n}" for n in range(1, 231)),  # counts of a cell, angles
        *(f"\n{n}" for n in range(15, 166)),  # the first angle
        *(f"{start}{x}" for start in ("", " ", "\n") for x in fractions),
        *(f"{start}{x}" for start in ("", " ", "\n") for x in lengths),
        *elements,
        *(f"\n{symbol}" for symbol in elements),
        *(f" {site}" for site in sorted(sites)),
    ]


def nano_tokenizer() -> PreTrainedTokenizerFast:
    """The nano model's tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {token: n for n, token in enumerate(vocabulary())}
    padding, begin, end, unknown = SPECIAL
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=unknown))
    sentences = "|".join(re.escape(s) for s in sorted(SENTENCES, key=len, reverse=True))
    pattern = f"{sentences}|{_PIECES}".replace("\\ ", " ").replace("\\\n", "\\n")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    build: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = build(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token=end,
        pad_token=padding,
        unk_token=unknown,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    return made


def features(n_columns: int, seed: int) -> np.ndarray:
    """(tokens, n_columns) starting values of the embedding, similar for similar tokens.

    Close numbers start close, and so do elements of one group, period or size, which a small model
    would otherwise have to learn from few crystals. About unit variance.
    """
    rng = np.random.default_rng(seed)
    tokens = vocabulary()
    rows = np.zeros((len(tokens), n_columns))
    planes: dict[tuple[str, int], np.ndarray] = {}
    for at, token in enumerate(tokens):
        kind, values = _described(token)
        key = (kind, len(values))
        if key not in planes:
            planes[key] = rng.normal(size=(len(values), n_columns)) / max(len(values), 1) ** 0.5
        rows[at] = values @ planes[key] if len(values) else 0.0
    own = rng.normal(size=rows.shape)
    plain = np.abs(rows).sum(axis=1) == 0
    return np.where(plain[:, None], own, 0.9 * rows + 0.45 * own)


def _described(token: str) -> tuple[str, np.ndarray]:
    """(kind of token, numbers that distinguish it within its kind; none for words)."""
    text = token.lstrip(" \n")
    if text in MPTRJ_ELEMENTS:
        return "element" + token[:1].strip(text), element_features(text)
    if re.fullmatch(r"0\.[0-9]{2}", text):
        turn = 2 * np.pi * float(text) * np.array([1, 2, 3, 4, 6, 8])
        return "fraction", np.concatenate([np.cos(turn), np.sin(turn)]) * 2**0.5
    if re.fullmatch(r"[0-9]+\.[0-9]", text):
        wave = np.log(float(text)) * np.array([1.5, 4, 10, 25])
        return "length", np.concatenate([np.cos(wave), np.sin(wave)]) * 2**0.5
    return "word", np.zeros(0)


def element_features(symbol: str) -> np.ndarray:
    """An element's place in the periodic table and its size as numbers of about unit variance."""
    from pymatgen.core import Element

    element = Element(symbol)
    group = element.group if not element.is_lanthanoid and not element.is_actinoid else 3
    radius = element.data.get("Atomic radius")
    size = float(radius) if isinstance(radius, int | float) else 1.5
    pauling = element.data.get("X") or 1.5
    turn = 2 * np.pi * group / 18 * np.array([0.5, 1, 2])
    block = [3.0 * (element.block == b) for b in "spdf"]
    filling = element.Z - 57 if element.is_lanthanoid else element.Z - 89
    filled = (filling - 7) / 5 if element.is_lanthanoid or element.is_actinoid else 0.0
    return np.array(
        [
            *(1.4 * np.cos(turn)), *(1.4 * np.sin(turn)), (element.row - 4.5) / 1.5,
            2.0 * (float(pauling) - 1.7) / 0.6, (size - 1.4) / 0.35, filled, *block,
        ]
    )  # fmt: skip
