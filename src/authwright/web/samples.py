"""Protected samples: something to be let in to."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from authwright.domain.errors import (
    InsufficientScope,
    InvalidRequest,
    NotInstalled,
    PayloadTooLarge,
    Unauthenticated,
    UnprocessableContent,
    UnsupportedMediaType,
)
from authwright.domain.instant import Instant
from authwright.domain.plan import ANALYTICS, ANALYTICS_FULL, PREDICT, format_scope
from authwright.services.analytics import Analytics
from authwright.services.predict import MAX_ROWS, Predict, Prediction
from authwright.services.usage import Usage
from authwright.web.caller import Callers
from authwright.web.charts import analytics_page
from authwright.web.endpoint import Answer, Body, Call, Endpoints, Reply, json_reply, query_as

_BATCH_BODY = 256 * 1024
Centimetres = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Flower(Body):
    """Four measurements in centimetres."""

    sepal_length: Centimetres = Field(examples=[5.1])
    sepal_width: Centimetres = Field(examples=[3.5])
    petal_length: Centimetres = Field(examples=[1.4])
    petal_width: Centimetres = Field(examples=[0.2])


class Flowers(Body):
    """A batch."""

    rows: list[Flower] = Field(min_length=1, max_length=MAX_ROWS)


class PredictionShown(Answer):
    label: str = Field(alias="class", serialization_alias="class")
    probabilities: dict[str, float]


class ModelShown(Answer):
    name: str
    version: str


class PredictionAnswer(PredictionShown):
    """The likeliest class of the *features*, and the probability of each."""

    features: dict[str, float]
    model: ModelShown


class PredictionsAnswer(Answer):
    """A prediction for each row, in their order."""

    predictions: list[PredictionShown]
    model: ModelShown


class SecureData(Answer):
    message: str
    user_id: str
    username: str | None
    scope: str


class Calls(Answer):
    total: int
    by_day: dict[str, int]
    by_route: dict[str, int]
    by_status: dict[str, int]


class Predictions(Answer):
    total: int
    by_day: dict[str, dict[str, int]] = Field(description="By UTC day and predicted class.")


class Units(Answer):
    total: int
    by_day: dict[str, int] = Field(description="What callers spent of their plans, by UTC day.")


class Latency(Answer):
    """Milliseconds that this share of the calls did not exceed, to an eighth."""

    p50: float | None
    p90: float | None
    p99: float | None


class BasicReport(Answer):
    """The last 30 days of UTC, today included."""

    since: str
    until: str
    calls: Calls
    units: Units
    predictions: Predictions
    latency_ms: dict[str, Latency]
    callers_by_plan: dict[str, int]


class CallerFigures(Answer):
    id: str
    plan: str
    calls: int
    refused: int
    predictions: int


class FullReport(BasicReport):
    callers: list[CallerFigures] = Field(description="The busiest first, at most 1,000.")
    failed_logins: dict[str, int] = Field(description="By UTC day.")
    revocations: dict[str, int] = Field(description="By UTC day, as far as they still matter.")
    events: dict[str, int] = Field(description="Security events by kind and outcome.")


def _shown(prediction: Prediction) -> dict[str, object]:
    return {"class": prediction.label, "probabilities": dict(prediction.probabilities)}


def _shown_report(call: Call, report: Mapping[str, Any], title: str) -> Reply:
    # A program that takes anything gets what it can read.
    if "text/html" in (call.header(b"accept") or ""):
        return analytics_page(report, title=title)
    return json_reply(report, headers=((b"vary", b"accept"),))


def add_samples(
    endpoints: Endpoints,
    *,
    callers: Callers,
    predict: Predict,
    usage: Usage,
    analytics: Analytics,
    clock: Callable[[], Instant],
) -> None:
    """`/secure-data`, `/predict` and `/analytics`."""
    model = predict.facts.as_dict()

    async def secure_data(call: Call) -> Reply:
        """Anybody who is logged in."""
        principal = await callers(call)
        return json_reply(
            {
                "message": "You are in.",
                "user_id": principal.subject,
                "username": principal.username,
                "scope": format_scope(principal.scopes),
            }
        )

    async def predict_one(call: Call) -> Reply:
        """Predict one flower. Without features the documented example row is used, through the same model."""
        await callers(call, scope=PREDICT)
        query = call.query()
        flower = query_as(Flower, query) if query else Flower.model_validate(predict.facts.example)
        features = flower.model_dump()
        (prediction,) = await predict.predict([features])
        usage.predicted(prediction.label)
        return json_reply({**_shown(prediction), "features": features, "model": model})

    async def predict_batch(call: Call) -> Reply:
        """Predict up to 1,000 flowers at once."""
        principal = await callers(call, scope=PREDICT, limit=_BATCH_BODY)
        flowers = await call.json(Flowers, _BATCH_BODY)
        # Each row is a prediction; the call itself paid for the first.
        await callers.charge(call, principal, len(flowers.rows) - 1)
        predictions = await predict.predict([flower.model_dump() for flower in flowers.rows])
        for each in predictions:
            usage.predicted(each.label)
        return json_reply({"predictions": [_shown(each) for each in predictions], "model": model})

    async def analytics_basic(call: Call) -> Reply:
        """What was called in the last 30 days: calls, units, predictions, latencies, callers by plan; with
        `Accept: text/html` as a page with charts."""
        await callers(call, scope=ANALYTICS)
        return _shown_report(call, await analytics.basic(clock()), "Usage")

    async def analytics_full(call: Call) -> Reply:
        """As `/analytics/basic`, with figures of single callers, failed logins and revocations. For administrators."""
        await callers(call, scope=ANALYTICS_FULL)
        return _shown_report(call, await analytics.full(clock()), "Usage and security")

    for path, handle, name, answer in (
        ("/analytics/basic", analytics_basic, "analytics_basic", BasicReport),
        ("/analytics/full", analytics_full, "analytics_full", FullReport),
    ):
        endpoints.add(
            "GET",
            path,
            handle,
            name=name,
            summary=name.replace("_", ", ").capitalize(),
            tag="samples",
            answer=answer,
            refusals=(Unauthenticated, InsufficientScope),
            secured=True,
            charged=True,
        )
    endpoints.add(
        "GET",
        "/secure-data",
        secure_data,
        name="secure_data",
        summary="Secure data",
        tag="samples",
        answer=SecureData,
        refusals=(Unauthenticated,),
        secured=True,
        charged=True,
    )
    endpoints.add(
        "GET",
        "/predict",
        predict_one,
        name="predict",
        summary="Predict",
        tag="samples",
        answer=PredictionAnswer,
        query=Flower,
        refusals=(Unauthenticated, InsufficientScope, UnprocessableContent, NotInstalled),
        secured=True,
        charged=True,
    )
    endpoints.add(
        "POST",
        "/predict",
        predict_batch,
        name="predict_batch",
        summary="Predict a batch",
        tag="samples",
        answer=PredictionsAnswer,
        json=(Flowers,),
        refusals=(
            Unauthenticated,
            InsufficientScope,
            InvalidRequest,
            UnprocessableContent,
            PayloadTooLarge,
            UnsupportedMediaType,
            NotInstalled,
        ),
        secured=True,
        charged=True,
    )
