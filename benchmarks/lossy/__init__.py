"""Lossy coding beside NNCodec: size, signal-to-noise ratio and what the model still knows."""
