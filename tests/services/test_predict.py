"""services.predict: a real model, and the accuracy its card claims."""

import json
import sys
from importlib import resources

import pytest

from authwright.domain.errors import NotInstalled
from authwright.services.predict import Predict


@pytest.fixture
def predict():  # type: ignore[no-untyped-def]
    made = Predict()
    yield made
    made.stop()


async def test_the_model_is_as_accurate_as_its_card_says(predict: Predict) -> None:
    from authwright.ml.train import split

    _, rows, _, labels = split()
    table = [dict(zip(predict.facts.features, map(float, row), strict=True)) for row in rows]
    said = [prediction.label for prediction in await predict.predict(table)]
    accuracy = sum(name == predict.facts.classes[label] for name, label in zip(said, labels, strict=True)) / len(said)
    facts = json.loads((resources.files("authwright.ml") / "iris.json").read_text())
    assert round(accuracy, 4) == facts["held_back_accuracy"] > 0.9
    card = (resources.files("authwright.ml") / "MODEL_CARD.md").read_text()
    assert f"{facts['held_back_accuracy']:.2%}" in card
    assert facts["version"] in card


async def test_probabilities_are_a_distribution_and_answer_to_the_row(predict: Predict) -> None:
    row = dict(predict.facts.example)
    one, two = await predict.predict([row, {**row, "petal_width": 2.4}])
    for prediction in (one, two):
        assert abs(sum(prediction.probabilities.values()) - 1) < 1e-4
        assert prediction.label == max(prediction.probabilities, key=prediction.probabilities.__getitem__)
    assert one.probabilities != two.probabilities


async def test_without_the_runtime_the_answer_names_the_command(
    predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(NotInstalled, match=r"pip install 'authwright\[ml\]'"):
        await predict.predict([predict.facts.example])
