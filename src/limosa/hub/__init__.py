"""The knowledge center: which blobs there are, and what a receiver needs of them.

Nothing here knows the codec: to a hub a blob is bytes that turn one digest into another.
"""
