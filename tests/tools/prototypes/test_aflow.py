"""AFLOW's types are read without what pymatgen makes of the literature references."""

import subprocess
import sys

from hullward.tools.prototypes import aflow_types


def test_types_are_those_that_pymatgen_hands_out() -> None:
    from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY

    found = [(one.label, one.mineral, one.structure) for one in aflow_types()]
    assert found == [
        (entry["tags"]["aflow"], str(entry["tags"]["mineral"]), entry["snl"].structure)
        for entry in AFLOW_PROTOTYPE_LIBRARY
    ]


def test_library_is_built_without_parsing_literature() -> None:
    code = (
        "import sys; from hullward.tools.prototypes import prototype_library; prototype_library(); "
        "print('bibtexparser' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
