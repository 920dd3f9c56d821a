"""Train the sample model and write it beside this file: `python -m authwright.ml.train`.

Data: Fisher's iris measurements, which ship with scikit-learn. Model: standardised logistic regression. Written are
`iris.onnx` (the model), `iris.json` (what the service needs to know about it) and `MODEL_CARD.md` (for people).
The split is fixed, so that the accuracy in the card can be measured again.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FEATURES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
EXAMPLE_ROW = 57
SEED = 20
HELD_BACK = 0.3


def split() -> tuple[Any, Any, Any, Any]:
    """Training rows, held-back rows, training labels, held-back labels; the same at every call."""
    from sklearn.datasets import load_iris
    from sklearn.model_selection import train_test_split

    rows, labels = load_iris(return_X_y=True)
    return tuple(train_test_split(rows, labels, test_size=HELD_BACK, random_state=SEED, stratify=labels))


def train() -> dict[str, Any]:
    """Fit, export, measure on the held-back rows, and write the three files. Returns what `iris.json` holds."""
    import numpy
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train_rows, held_rows, train_labels, held_labels = split()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000))
    model.fit(train_rows, train_labels)
    predicted = model.predict(held_rows)
    onnx = to_onnx(model, train_rows[:1].astype(numpy.float32), options={"zipmap": False}).SerializeToString()

    data = load_iris()
    facts = {
        "model": "iris-logistic-regression",
        "version": f"1.{hashlib.sha256(onnx).hexdigest()[:8]}",
        "features": list(FEATURES),
        "unit": "cm",
        "ranges": {
            name: [float(column.min()), float(column.max())] for name, column in zip(FEATURES, data.data.T, strict=True)
        },
        "classes": [str(name) for name in data.target_names],
        "example": dict(zip(FEATURES, (float(value) for value in data.data[EXAMPLE_ROW]), strict=True)),
        "held_back_rows": len(held_labels),
        "held_back_accuracy": round(float((predicted == held_labels).mean()), 4),
        "held_back_confusion": [
            [int(((held_labels == actual) & (predicted == said)).sum()) for said in range(3)] for actual in range(3)
        ],
    }
    (HERE / "iris.onnx").write_bytes(onnx)
    (HERE / "iris.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    (HERE / "MODEL_CARD.md").write_text(_card(facts, len(train_labels)), encoding="utf-8")
    return facts


def _card(facts: dict[str, Any], trained_on: int) -> str:
    confusion = "\n".join(
        f"| {name} | {' | '.join(str(count) for count in row)} |"
        for name, row in zip(facts["classes"], facts["held_back_confusion"], strict=True)
    )
    ranges = "\n".join(
        f"| `{name}` | {low} | {high} | {facts['example'][name]} |" for name, (low, high) in facts["ranges"].items()
    )
    return f"""# Model card: {facts["model"]} {facts["version"]}

Written by `python -m authwright.ml.train`; do not edit.

**What it is for.** A real model behind `/predict`, so that the auth around it is tried on a real call. It tells three
species of iris apart by four measurements. It is not for botany.

**Data.** Fisher's iris data as shipped with scikit-learn: 150 flowers, 50 of each species; {trained_on} to train,
{facts["held_back_rows"]} held back (stratified, seed {SEED}).

**Model.** Measurements standardised, then multinomial logistic regression; exported to ONNX.

**Accuracy on the held-back rows: {facts["held_back_accuracy"]:.2%}.**

| species \\ predicted | {" | ".join(facts["classes"])} |
|---|---|---|---|
{confusion}

| feature ({facts["unit"]}) | least seen | most seen | example row |
|---|---|---|---|
{ranges}

**Limits.** Outside the ranges above the probabilities mean nothing. Versicolor and virginica overlap.
"""


if __name__ == "__main__":
    result = train()
    print(f"{result['model']} {result['version']}: accuracy {result['held_back_accuracy']:.2%} on held-back rows")
