"""A model as a graph of torch.fx: traced, with in-place changes and sizes understood, cut in two."""
