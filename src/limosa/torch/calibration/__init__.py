"""Calibrated rounding: what samples of data say about which errors of a weight matter."""
