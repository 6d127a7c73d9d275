"""Stages wired together: what each command does, with every part it needs. Nothing else wires or
prints.
"""
