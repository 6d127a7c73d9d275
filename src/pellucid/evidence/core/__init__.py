"""The verifier's heart: standard library alone, so that `verify.pyz` needs nothing but Python.

Builder and verifier share these modules: both sides compute every digest and number the same way.
"""
