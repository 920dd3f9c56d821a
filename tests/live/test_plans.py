"""Plans in a running server: read again when told to, and kept by several workers together."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from databases import drop_postgres_database, new_postgres_database
from processes import Running, free_port, production_environment, serving

FORM = {"username": "ada", "password": "a long and unusual passphrase"}
PLANS = '[free]\npermissions = []\nrate = "{rate}"\nburst = 40\n'


def bearer(server: Running) -> dict[str, str]:
    with server.http() as http:
        http.post("/register", json=FORM)
        return {"Authorization": f"Bearer {http.post('/login', data=FORM).json()['access_token']}"}


def test_a_hangup_reads_the_plans_again_and_ends_nothing(tmp_path: Path) -> None:
    file, port = tmp_path / "plans.toml", free_port()
    file.write_text(PLANS.format(rate="50/minute"))
    with serving(tmp_path, "serve", port=port, **production_environment(port, AUTHWRIGHT_PLANS=str(file))) as server:
        headers = bearer(server)
        with server.http() as http:
            policy = http.get("/me", headers=headers).headers["ratelimit-policy"]
            assert policy == '"rate";q=50;w=60'
            file.write_text(PLANS.format(rate="70/minute"))
            server.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 10
            while policy != '"rate";q=70;w=60':
                assert time.monotonic() < deadline
                policy = http.get("/me", headers=headers).headers["ratelimit-policy"]
        assert server.stop() in (0, -signal.SIGTERM)
    assert '"plans_read"' in server.log.read_text()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_workers_keep_a_rate_together(tmp_path: Path, database: str, postgres_server: str) -> None:
    """Never more than the rate over all workers, and nearly all of it."""
    (tmp_path / "plans.toml").write_text(PLANS.format(rate="600/minute"))
    url = await new_postgres_database(postgres_server) if database == "postgresql" else ""
    port = free_port()
    env = production_environment(
        port, WEB_CONCURRENCY="2", DATABASE_URL=url, AUTHWRIGHT_PLANS=str(tmp_path / "plans.toml")
    )
    with serving(tmp_path, "serve", port=port, **env) as server:
        headers = bearer(server)
        seconds = 6.0
        # From before the first call: the bucket is full then.
        begun = time.monotonic()

        def call() -> int:
            served = 0
            with server.http() as http:
                while time.monotonic() < begun + seconds:
                    served += http.get("/me", headers=headers).status_code == 200
            return served

        with ThreadPoolExecutor(8) as pool:
            served = sum(future.result() for future in [pool.submit(call) for _ in range(8)])
        took = time.monotonic() - begun
        assert served <= 40 + 10 * took
        # What leases hold back is never lost for long.
        assert served >= 0.75 * (40 + 10 * seconds)
        assert server.stop() in (0, -signal.SIGTERM)
    if url:
        await drop_postgres_database(postgres_server, url)


def test_a_kill_forgets_the_last_second_of_usage_at_most(tmp_path: Path) -> None:
    port = free_port()
    env = production_environment(port)
    with serving(tmp_path, "serve", port=port, **env) as server:
        headers = bearer(server)
        at: list[float] = []
        with server.http() as http:
            begun = time.monotonic()
            while time.monotonic() < begun + 2.5:
                assert http.get("/me", headers=headers).status_code == 200
                at.append(time.monotonic())
        killed = time.monotonic()
        server.kill()
    with serving(tmp_path, "serve", port=port, **env) as server:
        headers = bearer(server)
        with server.http() as http:
            used = http.get("/me/usage", headers=headers).json()["total"]
    assert sum(each < killed - 1 for each in at) <= used <= len(at)
