"""The codec: tensors to a ``.limosa`` stream and back (docs/format.md).

``encoder`` and ``decoder`` never import each other; both read ``constants`` and the modules that
hold one part of the stream each, its writer beside its reader: ``sections``, ``layout``,
``index``, ``set_table``.
"""
