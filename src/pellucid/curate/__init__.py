"""Which samples are worth learning from: filters, selection, teacher, review, general data.

    candidates ── filters ── select ── teacher ── filters again ── review ──┐
    general data ───────────────────────────────────────────────────────────┴─► examples.jsonl

No torch. Who samples, grades and trains: `pellucid.pipeline.curated_sft`.
"""
