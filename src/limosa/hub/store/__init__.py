"""Where a hub keeps things: a database of names and edges, and blobs in a folder or in S3."""
