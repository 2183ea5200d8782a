"""Refinements (docs/format.md 8): updates of a few learned numbers, rebuilt from the base.

An encoder (:mod:`write`) says for each tensor that changed how it follows from the base's
(:mod:`records`) and packs the numbers that this needs; a decoder (:mod:`read`) unpacks them, and
:mod:`rebuild` does the arithmetic, which is the same on both sides and exact.
"""
