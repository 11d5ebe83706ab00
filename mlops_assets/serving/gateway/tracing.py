"""W3C trace context, and OpenTelemetry spans where a collector is named.

Every request has a trace id: the caller's, if it sends a ``traceparent``, else one of ours. It
stands in the request log and the access log, and goes on to the engine. Spans are made and sent
(OTLP over HTTP) only where ``OTEL_EXPORTER_OTLP_ENDPOINT`` names who takes them.
"""

import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
TRACEPARENT = re.compile(rb"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")
NOTHING = (b"0" * 32, b"0" * 16)


class Trace:
    """The trace of one request, of which no spans are kept."""

    __slots__ = ("_parent", "id")

    def __init__(self, id: str, parent: str) -> None:
        """``parent`` is the ``traceparent`` that goes on to the engine."""
        self.id = id
        self._parent = parent

    def traceparent(self) -> str:
        """The header for whom we ask."""
        return self._parent

    def step(self, name: str, **facts: str) -> None:
        """What follows is called so, until the next step."""

    def end(self, status: int, **facts: str) -> None:
        """The request is over."""


class Tracing(Protocol):
    """Begins a trace for every request."""

    def begin(self, traceparent: bytes) -> Trace:
        """Go on with the caller's trace, or begin one."""
        ...

    def close(self) -> None:
        """Send what is left."""
        ...


class NoSpans:
    """Trace ids alone."""

    def begin(self, traceparent: bytes) -> Trace:
        """Without a span of our own, the engine's parent is the caller's."""
        if (found := _parse(traceparent)) is not None:
            return Trace(found[0], traceparent.decode())
        id, span = os.urandom(16).hex(), os.urandom(8).hex()
        return Trace(id, f"00-{id}-{span}-00")

    def close(self) -> None:
        """There is nothing to send."""


class Spans:
    """A span for the request, and one in it for every step."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("mlops_assets.serving")

    def begin(self, traceparent: bytes) -> Trace:
        """The request's span is a child of the caller's."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {"traceparent": traceparent.decode("latin-1")}
        context = TraceContextTextMapPropagator().extract(carrier)
        span = self._tracer.start_span("gateway", context, SpanKind.SERVER)
        return _Spanned(self, span)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class _Spanned(Trace):
    """A trace whose spans are kept."""

    __slots__ = ("_span", "_spans", "_step")

    def __init__(self, spans: Spans, span: "Span") -> None:
        super().__init__(f"{span.get_span_context().trace_id:032x}", "")
        self._spans, self._span = spans, span
        self._step: Span | None = None

    def traceparent(self) -> str:
        context = (self._step or self._span).get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def step(self, name: str, **facts: str) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context

        if self._step is not None:
            self._step.end()
        kind = SpanKind.CLIENT if name == "upstream" else SpanKind.INTERNAL
        context = set_span_in_context(self._span)
        self._step = self._spans._tracer.start_span(name, context, kind, facts)

    def end(self, status: int, **facts: str) -> None:
        from opentelemetry.trace import StatusCode

        if self._step is not None:
            self._step.end()
        self._span.set_attributes({"http.response.status_code": status, **facts})
        if status >= 500:
            self._span.set_status(StatusCode.ERROR)
        self._span.end(time.time_ns())


def make_tracing(environment: Mapping[str, str] = os.environ) -> Tracing:
    """Spans where the environment names a collector."""
    if not any(environment.get(name) for name in ENDPOINTS):
        return NoSpans()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": environment.get("OTEL_SERVICE_NAME", "mlops")})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider)


def _parse(traceparent: bytes) -> tuple[str, str] | None:
    found = TRACEPARENT.match(traceparent)
    if found is None or found[1] == NOTHING[0] or found[2] == NOTHING[1]:
        return None
    return found[1].decode(), found[2].decode()
