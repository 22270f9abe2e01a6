"""What Prometheus is told, summed over all processes of the service."""

import os
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from ml_assets.serving.metrics_folder import FOLDER

SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

REQUESTS = Counter("ml_assets_requests", "Requests answered, by status", ["use_case", "route", "status"])
LATENCY = Histogram(
    "ml_assets_request_seconds", "Time from the whole request to its answer", ["use_case", "route"], buckets=SECONDS
)
SCORES = Counter("ml_assets_scores", "Scores given: quiet, alert, degraded, or again (an event sent again)", ["use_case", "kind"])
ROWS = Counter("ml_assets_rows_observed", "Rows of events and labels taken in", ["use_case", "table"])
SWAPS = Counter("ml_assets_model_swaps", "Deployed models taken into service", ["use_case"])
REFUSALS = Counter("ml_assets_model_refusals", "Deployed models refused, with the one before going on", ["use_case"])
STORE_FAILURES = Counter("ml_assets_store_failures", "Requests that the online store did not answer", ["use_case"])
STATE = Gauge(
    "ml_assets_state_seen_until_seconds", "Latest event time in the online store", ["use_case"], multiprocess_mode="livemax"
)
WAITING = Gauge("ml_assets_log_waiting", "Scores not yet in the prediction log", ["use_case"], multiprocess_mode="livesum")


class _Tally:
    """Requests answered with 200 since they were last told: counting them in shared memory one by one would cost as much as a score."""

    def __init__(self) -> None:
        self.classes, self.seconds = [0] * (len(SECONDS) + 1), 0.0


_TALLIES: dict[tuple[str, str], _Tally] = defaultdict(_Tally)


def answered(use_case: str, route: str, status: int, seconds: float) -> None:
    """Counts a request; `tell` makes it known."""
    if status == 200:
        tally = _TALLIES[use_case, route]
        tally.classes[bisect_left(SECONDS, seconds)] += 1
        tally.seconds += seconds
    else:
        REQUESTS.labels(use_case, route, str(status)).inc()


def tell() -> None:
    """Makes known what was counted since the last time."""
    for (use_case, route), tally in _TALLIES.items():
        if count := sum(tally.classes):
            REQUESTS.labels(use_case, route, "200").inc(count)
            latency: Any = LATENCY.labels(use_case, route)
            for bucket, more in zip(latency._buckets, tally.classes, strict=True):  # it has no way to observe many at once
                bucket.inc(more)
            latency._sum.inc(tally.seconds)
            tally.classes, tally.seconds = [0] * (len(SECONDS) + 1), 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """How many requests there were, and how long they took, in milliseconds: upper bounds, since times are counted in classes."""

    requests: int
    p50: float | None
    p99: float | None


def exposition() -> bytes:
    """All metrics in the text format."""
    return generate_latest(_registry())


def latency_of(use_case: str, route: str) -> Latency:
    """Since the start of the service."""
    counts: dict[float, float] = {}
    for metric in _registry().collect():
        for sample in metric.samples:
            labels = sample.labels
            ours = labels.get("use_case") == use_case and labels.get("route") == route
            if sample.name == "ml_assets_request_seconds_bucket" and ours:
                bound = float(labels["le"])
                counts[bound] = counts.get(bound, 0.0) + sample.value
    total = max(counts.values(), default=0.0)
    return Latency(requests=int(total), p50=_quantile(counts, 0.5 * total), p99=_quantile(counts, 0.99 * total))


def _quantile(counts: dict[float, float], rank: float) -> float | None:
    reached = [bound for bound, count in sorted(counts.items()) if count >= rank > 0]
    return None if not reached else 1000 * min(reached[0], SECONDS[-1])


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    if os.environ.get(FOLDER):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        for metric in (REQUESTS, LATENCY, SCORES, ROWS, SWAPS, REFUSALS, STORE_FAILURES, STATE, WAITING):
            registry.register(metric)
    return registry
