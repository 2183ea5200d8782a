"""What a hub needs done to what is in its blobs: verify, decode, make edges, measure."""
