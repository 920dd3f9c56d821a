"""Traces by OpenTelemetry, off until an exporter is configured: requests by FastAPI's own telemetry, and every verb of
the store. A span says which route or verb, how long and how it ended; never what was sent, stored or answered.
"""

import os
from collections.abc import Callable, MutableMapping
from inspect import iscoroutinefunction
from threading import Thread
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, Tracer, get_current_span

# Probes tell nothing, and a stream lasts as long as its reader.
_LEFT_OUT: Final = frozenset({"/health", "/livez", "/readyz", "/metrics", "/revocations"})
_COLLECTOR_SECONDS: Final = 3.0


class _Discreet(SpanProcessor):
    """Takes out of spans, before they are exported, where secrets and names stand: a reset link has its token in the
    query, and `/users/` has names in the path; `http.route` tells which route it was.
    """

    def on_start(self, span: Span, parent_context: object = None) -> None:
        attributes = span.attributes or {}
        if "url.query" in attributes:
            span.set_attribute("url.query", "REDACTED")
        if "url.path" in attributes:
            span.set_attribute("url.path", "REDACTED")

    def on_end(self, span: ReadableSpan) -> None:
        pass


class Tracing:
    """Sends spans to the OTLP *endpoint* (`http://collector:4318`), in batches and beside the requests.

    The standard OTEL_* variables say the rest: OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER.
    """

    def __init__(self, endpoint: str, *, version: str, base_path: str = "") -> None:
        self._left_out = {f"{prefix}{path}" for path in _LEFT_OUT for prefix in ("", base_path)}
        attributes = {"service.version": version}
        if not os.environ.get("OTEL_SERVICE_NAME"):
            attributes["service.name"] = "authwright"
        self.provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self.provider.add_span_processor(_Discreet())
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=_COLLECTOR_SECONDS)
        self.provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self.provider.get_tracer("authwright", version)

    def trace(self, store: object, *, system: str) -> None:
        """Put a span around every verb of *store* that a request calls; *system* is its `db.system.name`."""
        for name, group in list(vars(store).items()):
            if not name.startswith("_"):
                setattr(store, name, self.traced(group, name=name, system=system))

    def traced(self, group: Any, *, name: str, system: str) -> Any:
        """*group*, some verbs of a store, with a span around each."""
        return _Traced(group, self._tracer, name, system)

    def flush(self) -> None:
        """Send what there is now, and wait until the collector has it, a few seconds at most."""
        self.provider.force_flush(int(_COLLECTOR_SECONDS * 1000))

    def close(self) -> None:
        """Send what is left, and stop; a collector that does not answer is not waited for."""
        ending = Thread(target=self.provider.shutdown, daemon=True)
        ending.start()
        ending.join(_COLLECTOR_SECONDS)

    def leaves_out(self, scope: MutableMapping[str, Any]) -> bool:
        """Whether this request (an ASGI scope) gets no span: probes, metrics and streams."""
        return scope["path"].rstrip("/") in self._left_out


class _Traced:
    def __init__(self, group: Any, tracer: Tracer, name: str, system: str) -> None:
        self._group = group
        self._tracer = tracer
        self._name = name
        self._system = system

    def __getattr__(self, verb: str) -> Any:
        found = getattr(self._group, verb)
        if iscoroutinefunction(found):
            found = self._with_span(verb, found)
            # From now on it is found without coming here.
            self.__dict__[verb] = found
        return found

    def _with_span(self, verb: str, work: Callable[..., Any]) -> Callable[..., Any]:
        attributes = {
            "db.system.name": self._system,
            "db.collection.name": self._name,
            "db.operation.name": verb,
        }

        async def spanned(*given: Any, **named: Any) -> Any:
            # What goes on beside the requests would be a trace of its own, several times a second.
            if not get_current_span().get_span_context().is_valid:
                return await work(*given, **named)
            with self._tracer.start_as_current_span(
                f"{self._name}.{verb}",
                kind=SpanKind.CLIENT,
                attributes=attributes,
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                try:
                    return await work(*given, **named)
                except Exception as error:
                    # What it says may hold what was stored.
                    span.set_attribute("error.type", type(error).__qualname__)
                    span.set_status(StatusCode.ERROR)
                    raise

        return spanned
