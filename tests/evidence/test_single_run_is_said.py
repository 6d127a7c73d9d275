"""A comparison of one training says so wherever it is repeated: table, page, model card."""

from honest_dossier import Maker, write

from pellucid.evidence.core.__main__ import render
from pellucid.evidence.core.verify import verify
from pellucid.evidence.exports.model_card import write_model_card
from pellucid.evidence.exports.source import read_source
from pellucid.report.dossier.page import write_dossier_page

LABEL = "single run: claim C1"


def test_table_page_and_model_card_say_that_a_claim_is_of_a_single_run(tmp_path):
    dossier = write(Maker().files(), tmp_path / "d")
    table = next(x for x in render(verify(dossier)).splitlines() if x.startswith("C1 "))
    assert table.endswith(LABEL)
    assert LABEL in write_dossier_page(dossier).read_text()
    card = write_model_card(read_source(dossier), tmp_path)[0]
    assert LABEL in card.read_text()
