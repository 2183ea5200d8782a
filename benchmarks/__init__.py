"""Benchmarks: limosa beside other codecs, on real weights (see README.md in this folder)."""
