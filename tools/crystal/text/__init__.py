"""The two text forms in which language models read and write crystals, and their grammars.

`cell` lists every site of a cell (LLaMat-CIF's form, form A); `asymmetric` lists the sites of one
asymmetric unit (form B). Both accept or reject with a reason and repair nothing. The grammars
limit what a model can write to texts that parse and meet a wish.
"""

from hullward.tools.crystal.text import asymmetric, cell
from hullward.tools.crystal.text.asymmetric import AsymmetricUnit, parse, write
from hullward.tools.crystal.text.asymmetric_grammar import can_hold, unit_grammar
from hullward.tools.crystal.text.asymmetric_unit import asymmetric_unit
from hullward.tools.crystal.text.cell import parse, split_completion, write
from hullward.tools.crystal.text.cell_grammar import (
    DEFAULT_MAX_ATOMS,
    CrystalGrammar,
    crystal_grammar,
)
from hullward.tools.crystal.text.completion import Reading, read_asymmetric, read_completion

__all__ = [
    "DEFAULT_MAX_ATOMS",
    "AsymmetricUnit",
    "CrystalGrammar",
    "Reading",
    "asymmetric",
    "asymmetric_unit",
    "can_hold",
    "cell",
    "crystal_grammar",
    "parse",
    "read_asymmetric",
    "read_completion",
    "split_completion",
    "unit_grammar",
    "write",
]
