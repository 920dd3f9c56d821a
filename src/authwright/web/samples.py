"""Protected samples: something to be let in to."""

from typing import Annotated

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
from authwright.domain.plan import PREDICT, format_scope
from authwright.services.predict import MAX_ROWS, Predict, Prediction
from authwright.web.caller import Callers
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


def _shown(prediction: Prediction) -> dict[str, object]:
    return {"class": prediction.label, "probabilities": dict(prediction.probabilities)}


def add_samples(endpoints: Endpoints, *, callers: Callers, predict: Predict) -> None:
    """`/secure-data` and `/predict`."""
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
        return json_reply({**_shown(prediction), "features": features, "model": model})

    async def predict_batch(call: Call) -> Reply:
        """Predict up to 1,000 flowers at once."""
        await callers(call, scope=PREDICT)
        flowers = await call.json(Flowers, _BATCH_BODY)
        predictions = await predict.predict([flower.model_dump() for flower in flowers.rows])
        return json_reply({"predictions": [_shown(each) for each in predictions], "model": model})

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
    )
