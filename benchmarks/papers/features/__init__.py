"""Parts of the experiment on intermediate features: what is measured, and how it is told."""
