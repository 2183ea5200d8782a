"""A model as a graph of torch.fx: traced, with changes in place and sizes known, cut in two."""
