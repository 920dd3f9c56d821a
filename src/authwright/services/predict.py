"""The sample model behind a thread: a real prediction for whoever may ask for one."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from authwright.domain.errors import NotInstalled

MAX_ROWS: Final = 1000


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the training wrote about the model: feature names in order, class names, a documented example row."""

    name: str
    version: str
    features: tuple[str, ...]
    classes: tuple[str, ...]
    example: Mapping[str, float]

    def as_dict(self) -> dict[str, str]:
        return {"name": self.name, "version": self.version}


@dataclass(frozen=True, slots=True)
class Prediction:
    """The likeliest class and the probability of each."""

    label: str
    probabilities: Mapping[str, float]


def read_model_facts() -> ModelFacts:
    """The facts of the model in the package; needs no extra."""
    facts = json.loads((resources.files("authwright.ml") / "iris.json").read_text(encoding="utf-8"))
    return ModelFacts(
        name=facts["model"],
        version=facts["version"],
        features=tuple(facts["features"]),
        classes=tuple(facts["classes"]),
        example=facts["example"],
    )


class Predict:
    """Runs the model on one thread of its own, off the event loop; loads it at the first call."""

    def __init__(self) -> None:
        self.facts = read_model_facts()
        self._executor: ThreadPoolExecutor | None = None
        self._session: Any = None

    async def predict(self, rows: Sequence[Mapping[str, float]]) -> list[Prediction]:
        """A prediction for each of at most MAX_ROWS rows. Raises NotInstalled without the `ml` extra."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, thread_name_prefix="authwright-model")
        table = [[row[name] for name in self.facts.features] for row in rows]
        loop = asyncio.get_running_loop()
        probabilities = await loop.run_in_executor(self._executor, self._run, table)
        return [self._prediction(row) for row in probabilities]

    def stop(self) -> None:
        """Let the thread finish."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None

    def _run(self, table: list[list[float]]) -> list[list[float]]:
        try:
            import numpy
            import onnxruntime
        except ImportError:
            raise NotInstalled(
                "Predictions need the model runtime; install it with: pip install 'authwright[ml]'"
            ) from None
        if self._session is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            model = (resources.files("authwright.ml") / "iris.onnx").read_bytes()
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        name = self._session.get_inputs()[0].name
        _, probabilities = self._session.run(None, {name: numpy.asarray(table, dtype=numpy.float32)})
        result: list[list[float]] = probabilities.tolist()
        return result

    def _prediction(self, row: list[float]) -> Prediction:
        by_class = {name: round(value, 6) for name, value in zip(self.facts.classes, row, strict=True)}
        return Prediction(max(by_class, key=by_class.__getitem__), by_class)
