"""Where the codec meets files and, later, the network."""
