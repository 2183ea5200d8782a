"""What a hub counts, for Prometheus."""

from __future__ import annotations

from typing import Any

from limosa.errors import MissingExtraError

try:
    import prometheus_client as prometheus
except ModuleNotFoundError:
    raise MissingExtraError.for_extra("hub", "a hub") from None

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one worker.

    >>> metrics = Metrics()
    >>> metrics.sent.labels("blob").inc(10)
    >>> b'limosa_hub_bytes_sent_total{kind="blob"} 10.0' in metrics.text()
    True
    """

    content_type: str = prometheus.CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        own: Any = {"registry": self.registry}
        self.requests = prometheus.Counter(
            "limosa_hub_requests_total", "Requests by route and status.", ["route", "status"], **own
        )
        self.sent = prometheus.Counter(
            "limosa_hub_bytes_sent_total", "Bytes of blobs sent, or handed to another.", ["kind"],
            **own,
        )  # fmt: skip
        self.received = prometheus.Counter(
            "limosa_hub_bytes_received_total", "Bytes of uploads.", **own
        )
        self.saved = prometheus.Counter(
            "limosa_hub_bytes_saved_total",
            "Whole models less what was delivered instead, as receivers reported.", **own,
        )  # fmt: skip
        self.edges = prometheus.Counter(
            "limosa_hub_edges_total", "Edges asked for, by whether they were there.", ["found"],
            **own,
        )  # fmt: skip
        self.plan_seconds = prometheus.Histogram(
            "limosa_hub_plan_seconds", "Time to plan a route.", buckets=_SECONDS, **own
        )
        self.work_seconds = prometheus.Histogram(
            "limosa_hub_work_seconds", "Time to decode and encode.", ["work"], buckets=_SECONDS,
            **own,
        )  # fmt: skip
        self.pushes = prometheus.Counter(
            "limosa_hub_pushes_total", "Uploads by how they ended.", ["outcome"], **own
        )

    def text(self) -> bytes:
        """All of them in Prometheus' format."""
        return prometheus.generate_latest(self.registry)
