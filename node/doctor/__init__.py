"""An examination of nodes and agents by what they tell anybody: what was gathered, and what is to be said of it.

``gathering.py`` asks; everything else is pure, from ``answers.py`` to findings.

Source: docs/operations.md, "Paged at night".
"""
