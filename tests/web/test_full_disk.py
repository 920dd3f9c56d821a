"""A disk that is full, a file that became read-only: an error with a name, and nothing half done."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import Service, bearer, open_service

Trouble = Callable[[Service], "contextmanager[None]"]


def statement(service: Service, sql: str) -> int:
    row = service.server.store._database._opened().writer._connection.execute(sql).fetchone()  # type: ignore[attr-defined]
    return int(row[0]) if row else 0


@contextmanager
def full(service: Service) -> Iterator[None]:
    """SQLite itself says that the disk is full: the file may not grow, and has no free page."""
    statement(service, "VACUUM")
    pages = statement(service, "PRAGMA page_count")
    statement(service, f"PRAGMA max_page_count = {pages}")
    yield
    statement(service, "PRAGMA max_page_count = 1000000")


@contextmanager
def read_only(service: Service) -> Iterator[None]:
    statement(service, "PRAGMA query_only = ON")
    yield
    statement(service, "PRAGMA query_only = OFF")


@pytest.mark.parametrize(("trouble", "name"), [(full, "full"), (read_only, "readonly")])
async def test_what_cannot_be_written_is_503_with_a_name_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trouble: Trouble, name: str
) -> None:
    async with open_service(database_url=f"sqlite:///{tmp_path}/store.db") as service:
        login = await service.registered_login("ada")
        _, key = await service.new_client()
        form = {"username": "ada", "password": "test123"}
        with trouble(service):
            refused = 0
            # A page may have room for a row or two; then there is none.
            for number in range(200):
                answers = [
                    await service.http.post("/register", json={"username": f"eve{number}", "password": "test123"}),
                    await service.http.post("/login", data=form),
                    await service.http.post("/login", json={"client_key": key}),
                ]
                refused = sum(answer.status_code == 503 for answer in answers)
                for answer in answers:
                    assert answer.status_code in (200, 201, 503), answer.text
                    if answer.status_code == 503:
                        assert int(answer.headers["retry-after"]) >= 1
                        assert "sqlite" not in answer.text.lower()
                if refused == 3:
                    break
            assert refused == 3
            before = await service.server.store.sessions.list_all(now=service.clock(), after=None, most=999)
            assert (await service.http.post("/login", data=form)).status_code == 503
            if trouble is read_only:
                assert (await service.refresh(login["refresh_token"])).status_code == 503
            # What needs no write goes on.
            assert (await service.get("/secure-data", login["access_token"])).status_code == 200
            assert (await service.http.get("/.well-known/jwks.json")).status_code == 200
            after = await service.server.store.sessions.list_all(now=service.clock(), after=None, most=999)
            assert after == before
        assert name in capsys.readouterr().out
        # Nothing was spent, and nothing half made.
        assert (await service.refresh(login["refresh_token"])).status_code == 200
        assert (await service.login("ada"))["user_id"] == login["user_id"]
        assert (await service.http.get("/me", headers=bearer(login["access_token"]))).status_code == 200
        names = {"username": f"eve{number}", "password": "test123"}
        assert (await service.http.post("/register", json=names)).status_code == 201
