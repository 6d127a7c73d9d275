"""Review rounds: a referee's points on a sealed dossier, their answers, and who may close them.

points (records) ← letter (JSON, Markdown, OpenReview) → rounds → reviews/ledger.jsonl
ledger → history (state of every point) → export (the peer-review file)
"""
