"""The two text forms in which language models read and write crystals, and their grammars.

`cell` lists every site of a cell (LLaMat-CIF's form, form A); `asymmetric` lists the sites of one
asymmetric unit (form B). Both accept a text or reject it with a reason; they repair nothing. The
grammars restrict a model to texts that parse and fulfil a wish.
"""

from hullward.tools.crystal.text.asymmetric import (
    AsymmetricUnit,
    parse_asymmetric_text,
    parse_unit,
    write_asymmetric_text,
)
from hullward.tools.crystal.text.asymmetric_grammar import can_hold, unit_grammar
from hullward.tools.crystal.text.cell import parse_cell_text, split_completion, write_cell_text
from hullward.tools.crystal.text.cell_grammar import (
    DEFAULT_MAX_ATOMS,
    CrystalGrammar,
    crystal_grammar,
)
from hullward.tools.crystal.text.completion import CutCompletion, read_asymmetric, read_completion
from hullward.tools.crystal.text.to_asymmetric import asymmetric_unit, electropositive_first

__all__ = [
    "DEFAULT_MAX_ATOMS",
    "AsymmetricUnit",
    "CrystalGrammar",
    "CutCompletion",
    "asymmetric_unit",
    "can_hold",
    "crystal_grammar",
    "electropositive_first",
    "parse_asymmetric_text",
    "parse_cell_text",
    "parse_unit",
    "read_asymmetric",
    "read_completion",
    "split_completion",
    "unit_grammar",
    "write_asymmetric_text",
    "write_cell_text",
]
