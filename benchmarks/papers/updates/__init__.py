"""The experiments of the second paper: updates learned to be small, against parameters and bytes."""
