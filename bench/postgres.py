"""What a refresh costs on PostgreSQL with the database's share, and how long an import of 100,000 users takes."""

import json
import secrets
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from bench.servers import Server, authwright
from databases import PostgresServer

USERS = 100_000


def import_seconds(database: PostgresServer) -> float:
    """Seconds for the whole command `users import` of USERS users with bcrypt hashes."""
    with authwright(DATABASE_URL=database.url) as server:
        file = server.folder / "users.jsonl"
        with file.open("w") as out:
            for number in range(USERS):
                user = {"username": f"user{number}", "email": f"user{number}@example.com"}
                user["password_hash"] = "$2b$12$" + secrets.token_hex(11)[:21] + "e" + secrets.token_hex(16)[:30] + "e"
                out.write(json.dumps(user) + "\n")
        command = [str(Path(sys.executable).parent / "authwright"), "users", "import", str(file)]
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, cwd=server.folder, env=server.environment)
        return time.perf_counter() - begun


class WithDatabase(Server):
    """A server whose CPU time is counted with that of its *database*."""

    database: PostgresServer

    def cpu(self) -> float:
        return super().cpu() + float(self.database.cpu())


def with_database(server: Server, database: PostgresServer) -> WithDatabase:
    both = WithDatabase(server.pid, server.base, server.folder, server.started, server.environment)
    both.database = database
    return both
