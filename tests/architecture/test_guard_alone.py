"""The guard is all that an API needs: importing it loads nothing of the server."""

import subprocess
import sys

# Not bcrypt: where it is installed, cryptography loads it by itself to read SSH keys.
SERVER_ONLY = [
    "argon2",
    "fastapi",
    "starlette",
    "pydantic",
    "sqlalchemy",
    "uvicorn",
    "structlog",
    "typer",
    "rich",
    "precis_i18n",
    "confusable_homoglyphs",
    "zxcvbn",
    "onnxruntime",
    "numpy",
    "sqlite3",
    "dotenv",
    "authwright.config",
    "authwright.services",
    "authwright.storage",
    "authwright.web",
    "authwright.app",
    "authwright.jose.sign",
    "authwright.domain.passwords",
    "authwright.domain.names",
]


def test_importing_the_guard_loads_nothing_of_the_server() -> None:
    script = f"import authwright.guard, sys; print(*sorted(set({SERVER_ONLY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_names_looked_for_are_those_the_server_loads() -> None:
    loaded = "import authwright.app.routes, authwright.cli.main, sys"
    script = f"{loaded}; print(*sorted(set({SERVER_ONLY!r}) - set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    # Loaded when needed: the model's runtime at the first prediction, block list and .env when they are read.
    assert set(done.stdout.split()) <= {"onnxruntime", "numpy", "dotenv", "zxcvbn"}


def test_nothing_that_the_guard_loads_can_sign_or_make_a_key() -> None:
    """Of all of Authwright that an API with the guard holds, in whatever way it is protected."""
    script = """
import sys
import authwright.guard, authwright.guard.asgi, authwright.guard.fastapi
for name, module in list(sys.modules.items()):
    if name.startswith("authwright"):
        for holder in (module, *(each for each in vars(module).values() if isinstance(each, type))):
            for made in ("sign", "generate", "private_bytes"):
                if callable(getattr(holder, made, None)):
                    print(name, holder, made)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    # The server's own can: that is what is looked for.
    server = script.replace("authwright.guard.fastapi", "authwright.jose.sign")
    done = subprocess.run([sys.executable, "-c", server], capture_output=True, text=True, check=True)
    assert {"sign", "generate", "private_bytes"} <= set(done.stdout.split())
