"""The sample model: trained by `train.py`, described in `MODEL_CARD.md`, served by `services.predict`."""
