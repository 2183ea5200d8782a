"""The experiments of the papers that limosa implements, run again with limosa."""
