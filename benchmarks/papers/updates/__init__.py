"""The experiments of the second paper: updates learned to be small, in parameters and bytes."""
