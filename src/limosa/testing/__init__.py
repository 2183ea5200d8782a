"""Suites for those who write another part of limosa: inherit one, and say how yours is opened."""
