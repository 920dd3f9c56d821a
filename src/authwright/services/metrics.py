"""What is counted for operators, by the conventions of Prometheus: https://prometheus.io/docs/practices/naming/.

Each server has a registry of its own. Where several workers share one address, `PROMETHEUS_MULTIPROC_DIR` names a
folder, set before this module is loaded, in which each keeps its counts; an answer then adds those of all.
"""

import os
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "authwright_http_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self.seconds = Histogram(
            "authwright_http_request_duration_seconds",
            "Time from the head of a request to its whole answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.logins = Counter(
            "authwright_logins", "Logins by credential and outcome.", ("credential", "outcome"), registry=registry
        )
        self.tokens = Counter("authwright_access_tokens_issued", "Access tokens issued.", registry=registry)
        self.refreshes = Counter("authwright_refreshes", "Refreshes by outcome.", ("outcome",), registry=registry)
        self.reuses = Counter(
            "authwright_refresh_token_reuses", "Spent refresh tokens that were presented again.", registry=registry
        )
        self.revocations = Counter(
            "authwright_revocations", "Entries written to the ledger, by kind.", ("kind",), registry=registry
        )
        self.throttled = Counter(
            "authwright_throttled", "Attempts refused because of failures before them.", registry=registry
        )
        self.limited = Counter(
            "authwright_limited", "Calls refused by the limit of a plan.", ("limit",), registry=registry
        )
        self.hash_queue = Gauge(
            "authwright_password_hash_queue",
            "Requests that hold a place in the queue of password hashes.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.usage_backlog = Gauge(
            "authwright_usage_backlog",
            "Rows of usage counted and not stored yet.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.ledger_head = Gauge(
            "authwright_ledger_head",
            "Number of the newest revocation this server has read.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._children: dict[tuple[str, str, int], tuple[Callable[[], None], Callable[[float], None]]] = {}

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request. *method* and *route* are of a closed set: never what a stranger makes up."""
        child = self._children.get((method, route, status))
        if child is None:
            counter, histogram = self.requests.labels(method, route, str(status)), self.seconds.labels(route)
            child = self._children[method, route, status] = (counter.inc, histogram.observe)
        child[0]()
        child[1](seconds)

    def exposition(self) -> bytes:
        """All metrics in the text format 0.0.4; of all workers, where there are several."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # the library does not type this one
        return generate_latest(together)
