"""Every secret that a server issued in this test run, and the search for them where none may stand (R35, R178)."""

import contextlib
import json
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from authwright.domain.refresh import RefreshTokens
from authwright.jose.sign import Signer

# What answers call their secrets; a link carries its token in the query.
_NAMES = {"access_token", "refresh_token", "key", "client_key", "url"}
_RUN = re.compile(rb"[A-Za-z0-9_-]{40,}")
_PART = 36
_FILES = ("*.db", "*.db-wal", "*.log")


class Issued:
    """Secrets, by their first and last characters: a piece of one is as bad as the whole."""

    def __init__(self) -> None:
        self.count = 0
        self._parts: dict[bytes, str] = {}
        self._planted: set[str] = set()
        self.leaks: list[str] = []
        self.planted_found = False
        self.searched = 0
        self._others: list[str] = []

    def note(self, answer: Any) -> None:
        """Keep what is secret in the JSON of an *answer*."""
        if isinstance(answer, list):
            for each in answer:
                self.note(each)
        elif isinstance(answer, dict):
            for name, value in answer.items():
                if name in _NAMES and isinstance(value, str):
                    self._keep(value)
                else:
                    self.note(value)

    def note_text(self, text: str) -> None:
        """As `note`, for what may be JSON."""
        with contextlib.suppress(ValueError):
            self.note(json.loads(text))

    def plant(self, secret: str) -> None:
        """Keep a *secret* that does leak: the search must find this one, or it finds nothing."""
        self._planted.add(secret)
        # Where it was made it was noted as one that must not leak.
        self._parts = {part: value for part, value in self._parts.items() if part not in secret.encode()}
        self._keep(secret)

    def _keep(self, value: str) -> None:
        # Of a token the signature is what nobody else can make; prefixes say what a secret is.
        secret = value.rpartition("token=")[2].rpartition(".")[2].encode()
        random = secret[4:] if secret[3:4] == b"_" else secret
        if len(random) >= _PART:
            self.count += 1
            for part in (random[:_PART], random[-_PART:]):
                self._parts[part] = value

    def search(self, data: bytes, where: str) -> None:
        """Remember as a leak what of the secrets stands in *data*."""
        self.searched += 1
        for run in _RUN.findall(data):
            for start in range(len(run) - _PART + 1):
                value = self._parts.get(run[start : start + _PART])
                if value in self._planted:
                    self.planted_found = True
                elif value is not None:
                    self.leaks.append(f"{value[:12]}... in {where}")

    def search_files(self, folder: Path) -> None:
        """Search logs and databases that servers left in *folder*."""
        for path in _matching(folder):
            self.search(path.read_bytes(), str(path.relative_to(folder)))

    def told(self) -> dict[str, Any]:
        """All that `add` needs to know in another process."""
        return {"count": self.count, "searched": self.searched, "verdict": self.verdict()}

    def add(self, told: dict[str, Any] | None) -> None:
        """Take in what another process found; None: it did not live to tell."""
        told = told or {"count": 0, "searched": 0, "verdict": "a process that ran tests ended without a search"}
        self.count += told["count"]
        self.searched += told["searched"]
        if told["verdict"] is not None:
            self._others.append(told["verdict"])

    def verdict(self) -> str | None:
        """What is wrong, if anything."""
        if self._others:
            return "; ".join(self._others)
        if self.leaks:
            return f"{len(self.leaks)} secrets leaked: " + "; ".join(self.leaks[:10])
        if self._planted and not self.planted_found:
            return "the search did not find the secret that was planted"
        return None


def _matching(folder: Path) -> Iterable[Path]:
    return (path for pattern in _FILES for path in folder.rglob(pattern) if path.is_file())


ISSUED = Issued()


def note_at_the_source() -> None:
    """Note every key and token that is made in this process, whoever asks for it and however it is handed out."""
    token_urlsafe, encode, sign = secrets.token_urlsafe, RefreshTokens.encode, Signer.sign

    def noted(value: str) -> str:
        ISSUED.note({"key": value})
        return value

    secrets.token_urlsafe = lambda nbytes=None: noted(token_urlsafe(nbytes))
    RefreshTokens.encode = lambda self, token: noted(encode(self, token))  # type: ignore[method-assign]
    Signer.sign = lambda self, claims: noted(sign(self, claims))  # type: ignore[method-assign]
