"""Reduced cells of a campaign's crystals, kept beside it so that none is reduced twice.

They are found by the text of a crystal, whatever the campaign calls it.
"""

from hullward.tools.screening.cells.cell_file import CELLS, KeptCells

__all__ = ["CELLS", "KeptCells"]
