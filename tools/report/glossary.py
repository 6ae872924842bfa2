"""The words of a report, each explained in one sentence."""

from __future__ import annotations

GLOSSARY: dict[str, str] = {
    "rejected parse": "A proposal whose text describes no crystal.",
    "rejected check": "A crystal that cannot be right, with atoms too close for example, or that "
    "is outside the limits of the campaign; it was not relaxed.",
    "failed": "Its relaxation ended without a structure that can be used.",
    "unconverged": "Forces or stress were still too large after the last step.",
    "pending": "Not relaxed yet.",
    "hull pending": "Relaxed, but the reference has no hull for its elements.",
    "judged": "Relaxed to convergence and given a height above the hull of known phases.",
    "above the hull": "How much higher in energy a structure is than the best mixture of other "
    "phases of the same overall composition, per atom; 0 means that no such mixture is lower.",
    "reference": "The known phases, with energies of the same potential or on the same scale, that "
    "heights are measured against.",
    "union": "Reference and campaign together: the hull of the known phases and of everything "
    "credible that this campaign found, so that candidates also compete with one another.",
    "over the reference alone": "The height above the hull of the known phases without what this "
    "campaign found; negative where a candidate lies below that hull.",
    "covered": "The reference tried the usual structure types at this composition and in all its "
    "subsystems, so its hull is a fair one there; peroxides, metal-rich or high-valent compounds, "
    "molecules and most complex anions are often not covered.",
    "below the reference": "Lower than every mixture of known phases, at a composition that the "
    "reference does not cover: more likely a phase is missing from the reference than found here.",
    "stable": "On the hull of reference and campaign, within 1 meV/atom.",
    "metastable": "Above that hull by less than the threshold of the campaign, at a composition "
    "that the reference covers, and not suspect; stable candidates are counted with them.",
    "match": "Two structures match if one can be laid on the other, each atom on one of the same "
    "element, within the default tolerances of pymatgen's StructureMatcher.",
    "duplicate": "A candidate that matches another one of this campaign; the lowest in energy "
    "stands for all of them.",
    "known": "A proposal that matches a known phase before relaxation; it was not relaxed.",
    "rediscovered": "A candidate that relaxed into a known phase: a sign that the search works, "
    "not a discovery.",
    "standing": "What a candidate is next to what is known: one of the four that follow.",
    "known structure": "It matches a known phase.",
    "new structure of a known compound": "Phases of this formula are known, and none whose "
    "structure is at hand matches: a new polymorph or ordering, as far as these structures go.",
    "new composition": "No phase of this formula is known to the reference or to the list of known "
    "compounds.",
    "novelty not judged": "The compound is known or the reference holds no structures, so there is "
    "nothing to compare the candidate with.",
    "new": "Neither a known structure nor a duplicate, and its novelty could be judged; always "
    "next to the known structures that are named, never to all of the literature.",
    "ordering of": "The same sites as in the known phase that is named, with cations (or anions) "
    "exchanged among them.",
    "distortion of": "The same sites and the same order as in the known phase that is named, but "
    "displaced so far that the two do not match.",
    "lanthanide swap of": "The known phase that is named, with another lanthanide in it.",
    "family": "All candidates of one formula on one lattice, however their atoms are ordered on "
    "it; the short list shows the lowest one of each.",
    "suspect": "Too low in energy or too odd in structure to be believed, unless a second "
    "relaxation from displaced atoms or another potential confirmed it.",
    "second network": "Another machine-learned potential, which gives the energy of the same "
    "relaxed structure; where the two differ much, trust neither.",
    "DFT probability": "The chance that a DFT calculation finds the candidate within 50 or 100 "
    "meV/atom of the hull, learnt from DFT results of other candidates.",
    "typical error": "How far the potential's heights above the hull usually lie from DFT; a "
    "smaller difference does not rank two candidates.",
    "operator": "A way to propose structures: formula and space group ask the crystal model to "
    "write one, substitution puts other elements into a known structure, perturbation displaces "
    "atoms, swap exchanges two of them.",
}


def anchor(term: str) -> str:
    """The name of a term's place in the page."""
    return "term-" + term.lower().replace(" ", "-")
