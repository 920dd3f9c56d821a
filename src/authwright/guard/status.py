"""What a guard knows of itself, for whoever looks after it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """What a guard knows of itself. *staleness*: seconds since all revocations were known; infinite before."""

    staleness: float
    following: bool
    revocations: int
    cursor: str | None
    keys: int
    keys_age: float
    key_fetches: int
    introspections: int
    alarms: int

    def exposition(self, *, issuer: str, audience: str) -> str:
        """This, of the guard of *audience* of *issuer*, in the text format that Prometheus reads."""
        labels = f'{{issuer="{_escaped(issuer)}",audience="{_escaped(audience)}"}}'
        figures = (
            ("staleness_seconds", "gauge", "Since when revocations may be missing.", self.staleness),
            ("following", "gauge", "Whether revocations are followed as a stream.", int(self.following)),
            ("revocations", "gauge", "Revocations that matter.", self.revocations),
            ("keys_age_seconds", "gauge", "Since the issuer's keys were fetched.", self.keys_age),
            ("key_fetches_total", "counter", "Times the issuer was asked for its keys.", self.key_fetches),
            ("introspections_total", "counter", "Times the issuer was asked about a token.", self.introspections),
            ("alarms_total", "counter", "Tokens accepted unasked while the feed was lost.", self.alarms),
        )
        lines = []
        for name, kind, text, value in figures:
            full = f"authwright_guard_{name}"
            shown = "+Inf" if value == float("inf") else f"{value:.9g}"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full}{labels} {shown}"]
        return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
