"""The promise (`port`) and the adapters that keep it."""
