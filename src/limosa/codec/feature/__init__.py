"""Features: what a front end cuts from the middle of a network and sends on (docs/format.md 9)."""
