"""A dossier that another party made of the same weights, and one that holds it."""

from honest_dossier import STRANGER, Maker, make_samples, planned_claims, seal, write

from pellucid.evidence.compare import read_side
from pellucid.evidence.core.canonical import canonical_json
from pellucid.evidence.core.diff import diff_facets

PARTY = "lab"
PLACE = f"external/{PARTY}"


def party_maker():
    """They asked the released weights alone, and claim their pass@1."""
    maker = Maker()
    maker.secret = STRANGER
    maker.attempts = [("after", 1)]
    maker.samples = {"after": make_samples("after", 1)}
    maker.claims = planned_claims()[1:2]
    maker.plan = {**maker.default_plan(), "claims": maker.claims}
    return maker


def diff_of(ours, theirs, folder):
    """What a machine writes of two dossiers' files."""
    sides = [read_side(write(f, folder / n)).facets for f, n in ((ours, "a"), (theirs, "b"))]
    return diff_facets(*sides).to_dict()


def inside(ours, theirs, diff, *, name=PARTY, secret=None):
    """The files of a dossier with another one in it, sealed by its author (or `secret`)."""
    files = {**ours, f"external/{name}/diff.json": canonical_json(diff)}
    files |= {f"external/{name}/dossier/{path}": data for path, data in theirs.items()}
    return seal(files) if secret is None else seal(files, secret=secret)
