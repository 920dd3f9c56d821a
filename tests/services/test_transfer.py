"""services.transfer: users of other systems log in here with the passwords they had, and nothing is taken twice."""

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Any

import argon2
import bcrypt
import pytest

from authwright.domain.event import COMMAND_LINE
from authwright.domain.foreign_user import NotAUser, read_user
from authwright.services import transfer as module
from authwright.services.transfer import Report
from harness import Service

PASSWORD = "an old password"
SALT = b"sixteen bytes of"


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def keycloak(algorithm: str, value: bytes, rounds: int, **more: list[str]) -> list[dict[str, str]]:
    data = {"hashIterations": rounds, "algorithm": algorithm, "additionalParameters": more}
    secret = {"value": b64(value), "salt": b64(SALT)}
    return [
        {"type": "otp", "secretData": "{}", "credentialData": "{}"},
        {"type": "password", "secretData": json.dumps(secret), "credentialData": json.dumps(data)},
    ]


PBKDF2_256 = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), SALT, 1000, 64)
PBKDF2_512 = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), SALT, 1000, 64)
RAW_ARGON2 = argon2.low_level.hash_secret_raw(PASSWORD.encode(), SALT, 2, 64, 1, 32, argon2.Type.ID)
BCRYPT = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
DJANGO = f"pbkdf2_sha256$1000$salt${b64(hashlib.pbkdf2_hmac('sha256', PASSWORD.encode(), b'salt', 1000))}"

ROWS: dict[str, dict[str, Any]] = {
    "Keycloak PBKDF2-SHA256": {
        "username": "ada",
        "enabled": True,
        "createdTimestamp": 1700000000000,
        "credentials": keycloak("pbkdf2-sha256", PBKDF2_256, 1000),
    },
    "Keycloak PBKDF2-SHA512": {
        "username": "ada",
        "email": "ada@example.com",
        "enabled": True,
        "credentials": keycloak("pbkdf2-sha512", PBKDF2_512, 1000),
    },
    "Keycloak Argon2": {
        "username": "ada@example.com",
        "email": "ada@example.com",
        "enabled": True,
        "credentials": keycloak(
            "argon2", RAW_ARGON2, 2, type=["id"], memory=["64"], parallelism=["1"], version=["1.3"]
        ),
    },
    "Auth0": {
        "_id": {"$oid": "60425dc43519d90068f82973"},
        "email_verified": False,
        "email": "ada@example.com",
        "passwordHash": BCRYPT.replace("$2b$", "$2a$"),
        "created_at": {"$date": "2021-03-05T16:36:04.000Z"},
    },
    "FastAPI Users": {
        "id": "0b7e",
        "email": "ada@example.com",
        "hashed_password": argon2.PasswordHasher(memory_cost=64, time_cost=1, parallelism=1).hash(PASSWORD),
        "is_active": "1",
        "is_superuser": "0",
        "is_verified": "t",
    },
    "Django": {
        "id": "1",
        "password": DJANGO,
        "is_superuser": "f",
        "username": "ada",
        "email": "",
        "is_active": "t",
        "date_joined": "2021-03-05 16:36:04.123456+00",
    },
    "Django dumpdata": {
        "model": "auth.user",
        "pk": 1,
        "fields": {"password": DJANGO, "username": "ada", "email": "", "is_active": True, "is_superuser": False},
    },
}


async def take(service: Service, rows: Iterable[dict[str, Any]], **options: Any) -> Report:
    now = service.clock()
    return await service.server.transfer.take(enumerate(rows, 1), origin=COMMAND_LINE, now=now, **options)


@pytest.mark.parametrize("name", ROWS)
async def test_who_was_elsewhere_logs_in_with_the_password_of_before(service: Service, name: str) -> None:
    report = await take(service, [ROWS[name]])
    assert (report.imported, report.refused) == (1, [])
    user = read_user(ROWS[name])
    login = await service.login(user.username or user.email or "", PASSWORD)
    assert login["scope"]
    wrong = {"username": user.username or user.email, "password": PASSWORD + "x"}
    assert (await service.http.post("/login", data=wrong)).status_code == 401


async def test_an_import_is_repeated_without_harm(service: Service) -> None:
    rows = [{"username": f"user{number}", "password_hash": BCRYPT} for number in range(20)]
    assert (await take(service, rows[:10])).imported == 10
    report = await take(service, rows)
    assert (report.imported, report.present, report.refused) == (10, 10, [])


async def test_what_cannot_be_taken_is_named_with_its_row_and_stops_nothing(service: Service) -> None:
    await service.register("bholay", email="bholay@example.com")
    rows = [
        {"username": "eve", "email": "bholay@example.com", "password_hash": BCRYPT},
        {"username": "grace", "password_hash": BCRYPT},
        {"username": "Grace", "password_hash": BCRYPT},
        {"username": "a b", "password_hash": BCRYPT},
        {"username": "md5", "password_hash": "5f4dcc3b5aa765d61d8327deb882cf99"},
        {"username": "salty", "password_hash": "$2b$04$" + "a" * 53},
        {"username": "costly", "password_hash": "$2b$31$" + "." * 53},
        {"password_hash": BCRYPT},
        {},
        {"username": 7},
        {"username": "when", "created_at": "yesterday"},
        {"username": "broken", "enabled": True, "credentials": [{"type": "password", "secretData": "{"}]},
        {"username": "bholay", "email": "bholay@example.com"},
    ]
    report = await take(service, rows)
    assert (report.imported, report.present) == (1, 1)
    assert [number for number, _ in report.refused] == [4, 5, 6, 7, 8, 9, 10, 11, 12, 1, 3]
    told = " ".join(reason for _, reason in report.refused)
    for typed in ("eve", "bholay", "5f4dcc3b", "yesterday", "$2b$"):
        assert typed not in told


async def test_a_dry_run_says_the_same_and_stores_nothing(service: Service) -> None:
    rows = [*ROWS.values(), {"username": "a b"}, {"username": "new"}]
    dry = await take(service, rows, dry_run=True)
    wet = await take(service, rows)
    assert (dry.imported, dry.refused) == (wet.imported, wet.refused)
    assert wet.imported == 3


async def test_administrators_and_plans_come_only_when_they_are_asked_for(service: Service) -> None:
    rows = [
        {"username": "one", "role": "admin", "plan": "admin", "password_hash": BCRYPT},
        {"username": "two", "is_superuser": True, "plan": "gold", "status": "disabled"},
    ]
    await take(service, rows, plan="premium")
    one, two = [await service.server.users.find(name) for name in ("one", "two")]
    assert (one.shown_role, one.plan, two.plan, two.status) == ("user", "free", "premium", "disabled")
    renamed = [{**row, "username": row["username"] + "-again"} for row in rows]
    await take(service, renamed, admins=True)
    assert (await service.server.users.find("one-again")).shown_role == "admin"
    assert (await service.server.users.find("two-again")).role == "admin"


async def test_who_has_no_password_needs_a_link(service: Service) -> None:
    report = await take(service, [{"username": "ada"}, {"username": "eve", "password": "!unusable"}])
    assert (report.imported, report.without_password) == (2, 2)
    user = await service.server.users.find("ada")
    link = await service.server.passwords.reset_link(user, origin=COMMAND_LINE, now=service.clock())
    form = {"token": link.url.partition("token=")[2], "new_password": "brand new password"}
    assert (await service.http.post("/reset-password", json=form)).status_code == 200
    await service.login("ada", "brand new password")


async def test_every_import_is_on_record(service: Service) -> None:
    admin = await service.new_admin()
    await take(service, [{"username": "ada"}])
    user = await service.server.users.find("ada")
    (event,) = await service.events(admin, subject=user.id)
    assert (event["kind"], event["actor"], event["detail"]) == ("user_created", "command", "imported")


async def test_batches_and_somebody_who_registers_meanwhile(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    real = service.server.store.users.owners

    async def overtaken(names: Any) -> Any:
        found = await real(names)
        if not overtaken_by:
            overtaken_by.append(await service.register("user5"))
        return found

    overtaken_by: list[Any] = []
    monkeypatch.setattr(service.server.store.users, "owners", overtaken)
    told: list[int] = []
    rows = [{"username": f"user{number}", "password_hash": BCRYPT} for number in (5, 1, 2, 3, 4, 6, 7, 8, 9)]
    report = await take(service, rows, told=lambda report: told.append(report.rows))
    assert (report.imported, [number for number, _ in report.refused]) == (8, [1])
    assert told == [4, 8, 9]


@pytest.mark.parametrize(
    "row", [{"is_active": "maybe"}, {"created_at": -1}, {"createdTimestamp": "x", "enabled": True}]
)
def test_what_has_no_meaning_is_no_user(row: dict[str, Any]) -> None:
    with pytest.raises(NotAUser):
        read_user({"username": "ada", **row})
