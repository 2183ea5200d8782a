"""What the service counts, for Prometheus."""

from __future__ import annotations

from typing import Any

from limosa.errors import MissingExtraError

try:
    import prometheus_client as prometheus
except ModuleNotFoundError:
    raise MissingExtraError.for_extra("hub", "a service of features") from None

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one service, apart from those of others in the process.

    >>> metrics = Metrics()
    >>> metrics.features.labels("post", "ok").inc()
    >>> b'limosa_features_total{outcome="ok",way="post"} 1.0' in metrics.text()
    True
    """

    content_type: str = prometheus.CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        own: Any = {"registry": self.registry}
        self.features = prometheus.Counter(
            "limosa_features_total", "Features by way and outcome.", ["way", "outcome"], **own
        )
        self.tasks = prometheus.Counter(
            "limosa_feature_tasks_total", "Answers by task.", ["task"], **own
        )
        self.bytes = prometheus.Counter(
            "limosa_feature_bytes_total", "Bytes of features as they came.", **own
        )
        self.batch = prometheus.Histogram(
            "limosa_feature_batch", "Features in a batch.", buckets=(1, 2, 4, 8, 16, 32), **own
        )
        self.seconds = prometheus.Histogram(
            "limosa_feature_seconds", "Time by step.", ["step"], buckets=_SECONDS, **own
        )
        self.waiting = prometheus.Gauge(
            "limosa_feature_waiting", "Features that wait, by cut.", ["cut"], **own
        )
        self.pending = prometheus.Gauge(
            "limosa_feature_pending_bytes", "Decoded bytes of features under way.", **own
        )
        self.connections = prometheus.Gauge(
            "limosa_feature_connections", "Requests and streams under way.", **own
        )

    def text(self) -> bytes:
        """All of them in Prometheus' format."""
        return prometheus.generate_latest(self.registry)
