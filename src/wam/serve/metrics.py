"""What the server counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from wam.serve.request import Answer

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """A registry of its own, so that several servers can live in one process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.answers = Counter("wam_answers", "chunks of actions sent", ["dialect"], registry=registry)
        self.resets = Counter("wam_resets", "episodes ended by clients", ["dialect"], registry=registry)
        self.errors = Counter("wam_errors", "requests refused, by the name of the error", ["name"], registry=registry)
        self.cadence = Counter(
            "wam_cadence", "how the frames of an answer were chosen (see wam.serve.cadence)", ["how"], registry=registry
        )
        self.evicted = Counter("wam_sessions_evicted", "sessions ended because nobody used them", registry=registry)
        self.restarts = Gauge("wam_worker_restarts", "times the model's process was started again", registry=registry)
        self.ready = Gauge("wam_ready", "1 while the model can be asked", registry=registry)
        self.sessions = Gauge("wam_sessions", "episodes going on", registry=registry)
        self.connections = Gauge("wam_connections", "open websockets", registry=registry)
        self.pending = Gauge("wam_pending", "requests that wait for the model", registry=registry)
        self.record_dropped = Gauge("wam_record_dropped", "exchanges that --record had no time for", registry=registry)
        self.seconds = Histogram(
            "wam_answer_seconds", "from request to answer, in the server", buckets=_SECONDS, registry=registry
        )
        self.queue = Histogram("wam_queue_seconds", "waiting for the model", buckets=_SECONDS, registry=registry)
        self.stages = Histogram("wam_stage_seconds", "in the model", ["stage"], buckets=_SECONDS, registry=registry)
        self.batch = Histogram(
            "wam_batch", "sessions computed together", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        )

    def count(self, answer: Answer, dialect: str) -> None:
        self.answers.labels(dialect).inc()
        self.cadence.labels(answer.choice.how).inc()
        self.seconds.observe(answer.total_seconds)
        self.queue.observe(answer.queue_seconds)
        self.batch.observe(answer.batch)
        for stage, seconds in answer.seconds.items():
            self.stages.labels(stage).observe(seconds)

    def text(self) -> str:
        """The page that Prometheus reads."""
        return generate_latest(self.registry).decode()
