"""Evaluation: draw and grade samples (`runner`), keep (`records`) and compare them (`compare`)."""
