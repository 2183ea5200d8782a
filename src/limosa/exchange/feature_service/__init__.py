"""The cloud's side of features: decode what front ends send, compute many tasks, answer.

``service`` has the service itself, ``server`` puts it on a network. Both need the extras ``torch``
and ``hub``, so nothing is imported here.
"""
