"""Settings: one frozen value, read once, with every problem named at once.

A setting is read from `AUTHWRIGHT_<NAME>`, from its conventional name if it has one (`SECRET_KEY`, `DATABASE_URL`,
`PORT`, `WEB_CONCURRENCY`, `FORWARDED_ALLOW_IPS`), from either with `_FILE` appended (a file that holds the value), or
from the same names in `.env`; the environment beats `.env`. There is no module-level settings object: two apps with
different settings run in one process.
"""

import base64
import importlib.util
import ipaddress
import os
import re
import secrets
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, cast, get_args
from urllib.parse import urlsplit

Mode = Literal["dev", "serve"]
SigningAlgorithm = Literal["ES256", "RS256", "PS256", "EdDSA", "HS256"]

MAX_ACCESS_TOKEN_SECONDS: Final = 3600
"""No access token lives longer, whatever is configured; revocations are kept for as long."""
MIN_PASSWORD_LENGTH: Final = 8
MAX_ARGON2_WORK: Final = 1_048_576
"""KiB times passes: what a hash may cost at most."""


class SettingsError(Exception):
    """The settings cannot be used. *problems* has one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"- {problem}" for problem in problems))
        self.problems = tuple(problems)


def _text(value: str) -> str:
    return value


def _words(value: str) -> tuple[str, ...]:
    return tuple(value.replace(",", " ").split())


def _number(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if re.fullmatch(r"\d{1,12}", value) is None or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return read


def _choice(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return value

    return read


def _switch(value: str) -> bool:
    return _choice("on", "off")(value) == "on"


def _setting(default: Any, read: Callable[[str], Any], about: str, *names: str, secret: bool = False) -> Any:
    return field(
        default=default, repr=not secret, metadata={"read": read, "about": about, "names": names, "secret": secret}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be configured. Make one with `load_settings`, or directly and call `check_settings`."""

    mode: Mode = "serve"
    issuer: str = _setting(
        "", _text, "Public base URL of this server: the `iss` of every token. https, no trailing slash."
    )
    host: str = _setting("127.0.0.1", _text, "Address to listen on.")
    port: int = _setting(8000, _number(1, 65535), "Port to listen on.", "PORT")
    workers: int = _setting(1, _number(1, 256), "Worker processes.", "WEB_CONCURRENCY")
    hosts: tuple[str, ...] = _setting((), _words, "Host names this server answers for. Default: the issuer's.")
    forwarded_allow_ips: tuple[str, ...] = _setting(
        (),
        _words,
        "Addresses or networks of the proxies whose X-Forwarded-For and -Proto are believed.",
        "FORWARDED_ALLOW_IPS",
    )
    database_url: str = _setting(
        "",
        _text,
        "Where to store: `sqlite:///relative.db`, `sqlite:////absolute.db`, "
        "`postgresql://user:password@host/database`, `mongodb://user:password@host/database`, `mongodb+srv://...`.",
        "DATABASE_URL",
        "MONGO_URI",
        secret=True,
    )
    redis_url: str = _setting(
        "",
        _text,
        "Redis or Valkey, where several processes or machines agree on rates at every call: `redis://host:6379/0`, "
        "`rediss://user:password@host`. Without it they lease units from the database.",
        "REDIS_URL",
        secret=True,
    )
    database_connections: int = _setting(
        10, _number(1, 1000), "Connections of each worker to a database server, at most."
    )
    data: str = _setting(
        "", _text, "Folder for what belongs to this machine. Default: authwright-data (dev: .authwright)."
    )
    secret_key: str = _setting(
        "",
        _text,
        "32 random bytes or more; every other key is encrypted under it. `authwright init` makes one.",
        "SECRET_KEY",
        secret=True,
    )
    secret_key_previous: str = _setting(
        "",
        _text,
        "The secret before this one: still decrypts, until `authwright keys rewrap`.",
        "SECRET_KEY_PREVIOUS",
        secret=True,
    )
    registration: Literal["open", "admin"] = _setting(
        "admin", _choice("open", "admin"), "Who creates accounts: anybody (open), or an administrator."
    )
    docs: bool = _setting(False, _switch, "Whether /docs and /openapi.json are served: on or off.")
    profile: Literal["default", "oauth21"] = _setting(
        "default", _choice("default", "oauth21"), "oauth21 switches the password form off."
    )
    plans: str = _setting(
        "",
        _text,
        "TOML file with plans: a table for each, with its permissions and limits. Read again when it changes.",
    )
    failed_logins_account: int = _setting(
        5, _number(2, 100), "Wrong passwords in a row for an account from strangers, before each next one is delayed."
    )
    failed_logins_network: int = _setting(
        100, _number(2, 100_000), "The same for one network, over all accounts that it is not familiar to."
    )
    refusal_delay_ms: int = _setting(
        250, _number(0, 5000), "How long the answer is held back from who made too many attempts, in milliseconds."
    )
    registrations_per_hour: int = _setting(
        20, _number(0, 100_000), "Registrations of one network in an hour, before the next is delayed. 0: any number."
    )
    audiences: tuple[str, ...] = _setting((), _words, "URLs of the APIs that tokens can be asked for with `resource`.")
    signing_alg: SigningAlgorithm = _setting(
        "ES256", _choice(*get_args(SigningAlgorithm)), "Algorithm of new signing keys. HS256 is for closed systems."
    )
    access_token_seconds: int = _setting(300, _number(10, MAX_ACCESS_TOKEN_SECONDS), "Lifetime of an access token.")
    session_idle_seconds: int = _setting(
        14 * 86400, _number(60, 400 * 86400), "A session ends when it was not refreshed for so long."
    )
    session_seconds: int = _setting(90 * 86400, _number(60, 400 * 86400), "A session ends after so long in any case.")
    refresh_grace_seconds: int = _setting(
        10, _number(0, 60), "How long a refresh token that was just spent gets the same successor again."
    )
    leeway_seconds: int = _setting(5, _number(0, 120), "Difference between clocks that is tolerated in tokens.")
    password_min_length: int = _setting(
        15, _number(MIN_PASSWORD_LENGTH, 256), "Characters of a new password, at least (dev: 6)."
    )
    argon2_memory_kib: int = _setting(19_456, _number(8, 262_144), "Memory of a password hash in KiB.")
    argon2_passes: int = _setting(2, _number(1, 64), "Passes of a password hash.")
    argon2_lanes: int = _setting(1, _number(1, 16), "Lanes of a password hash.")
    hash_threads: int = _setting(
        0, _number(0, 64), "Threads that hash passwords in each worker. 0: cores divided by workers."
    )
    hash_queue: int = _setting(64, _number(4, 1024), "Logins that may wait for a hash; more get 503.")
    metrics_token: str = _setting(
        "",
        _text,
        "Who presents it as a bearer token may read /metrics, as an administrator may.",
        "METRICS_TOKEN",
        secret=True,
    )
    smtp_url: str = _setting(
        "",
        _text,
        "Mail server that tells users of changes to their accounts: `smtps://user:password@host` (TLS from the start), "
        "`smtp://user:password@host:587` (STARTTLS; none for a server on this machine). Empty: no mail.",
        "SMTP_URL",
        secret=True,
    )
    mail_from: str = _setting("", _text, "Address that mail comes from: auth@example.com.")
    events_days: int = _setting(400, _number(0, 36_500), "Days for which security events are kept. 0: for ever.")
    events_webhook: str = _setting(
        "", _text, "Where every security event is POSTed to: an https URL. Empty: nowhere.", secret=True
    )
    events_webhook_secret: str = _setting(
        "", _text, "What these are signed with (Standard Webhooks): `whsec_` and 24 to 64 bytes in base64.", secret=True
    )
    events_webhook_networks: tuple[str, ...] = _setting(
        (), _words, "Networks that the webhook may be in although they are not public: `10.1.0.0/16`."
    )
    otlp_endpoint: str = _setting(
        "",
        _text,
        "Where traces are sent by OTLP over HTTP: `http://collector:4318`. Empty: there are none.",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        secret=True,
    )
    log_level: str = _setting(
        "info", _choice("debug", "info", "warning", "error"), "Least severe log line that is written."
    )
    cors_origins: tuple[str, ...] = _setting(
        (),
        _words,
        "Origins of web apps in browsers that may read the answers of /token and /revoke: https://app.example.com.",
    )
    patience_seconds: int = _setting(
        10, _number(1, 600), "A client that takes longer to send the head of a request is cut off; body: half more."
    )
    shutdown_seconds: int = _setting(20, _number(1, 600), "How long requests may finish after SIGTERM.")

    @classmethod
    def dev(cls, **values: Any) -> "Settings":
        """Settings for development: open registration, docs and short passwords, unless *values* say otherwise."""
        return cls(
            **{
                "mode": "dev",
                "registration": "open",
                "docs": True,
                "password_min_length": 6,
                "registrations_per_hour": 0,
                **values,
            }
        )

    @property
    def is_dev(self) -> bool:
        return self.mode == "dev"

    @property
    def data_path(self) -> Path:
        return Path(self.data or (".authwright" if self.is_dev else "authwright-data"))

    @property
    def database_kind(self) -> Literal["sqlite", "postgresql", "mongodb"]:
        """What kind of database the store is."""
        scheme = self.database_url.partition("://")[0].partition("+")[0]
        if scheme in ("postgresql", "postgres"):
            return "postgresql"
        return "mongodb" if scheme == "mongodb" else "sqlite"

    @property
    def is_sqlite(self) -> bool:
        """Whether the store is SQLite."""
        return self.database_kind == "sqlite"

    @property
    def database_name(self) -> str:
        """What the store is called where people read it: never with a password."""
        if self.is_sqlite:
            return str(self.database_path or "a database in memory")
        parts = urlsplit(self.database_url)
        return f"{self.database_kind}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def database_path(self) -> Path | None:
        """The SQLite file, or None for a database in memory. Raises ValueError if the URL is not SQLite's."""
        if not self.database_url:
            return self.data_path / "authwright.db"
        rest = self.database_url.removeprefix("sqlite://")
        if rest == self.database_url or (rest and not rest.startswith("/")):
            raise ValueError("must be a sqlite:/// URL")
        name = rest[1:]
        return None if name in ("", ":memory:") else Path(name)

    @property
    def base_path(self) -> str:
        """The path of the issuer, below which a proxy may pass requests on: empty, or `/auth`."""
        return urlsplit(self.issuer).path

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    @property
    def allowed_hosts(self) -> frozenset[str]:
        """Values of the `Host` header that are answered, lower case."""
        if self.is_dev:
            return frozenset(f"{name}:{self.port}" for name in ("localhost", "127.0.0.1", "[::1]"))
        return frozenset(host.lower() for host in self.hosts) | {urlsplit(self.issuer).netloc.lower()}


SETTINGS: Final = tuple(each for each in fields(Settings) if "read" in each.metadata)


def setting_names(name: str) -> tuple[str, ...]:
    """The environment variables that set *name*, the prefixed one first."""
    metadata = next(each.metadata for each in SETTINGS if each.name == name)
    return (f"AUTHWRIGHT_{name.upper()}", *metadata["names"])


def load_settings(
    mode: Mode, *, environ: Mapping[str, str] | None = None, dotenv: Path | None = Path(".env"), **overrides: Any
) -> Settings:
    """The settings for *mode* from the environment and `.env`, *overrides* first. Raises SettingsError."""
    # The environment as a whole beats `.env`: one that sets PORT is not at odds with an AUTHWRIGHT_PORT in the file.
    sources = (os.environ if environ is None else environ, _read_dotenv(dotenv, mode))
    values = {**sources[1], **sources[0]}
    problems: list[str] = []
    chosen: dict[str, Any] = {}
    known: set[str] = {"AUTHWRIGHT_MODE"}
    for setting in SETTINGS:
        names = setting_names(setting.name)
        known |= {*names, *(f"{name}_FILE" for name in names)}
        found = _find(sources[0], names, problems) or _find(sources[1], names, problems)
        if found is None:
            continue
        name, text = found
        try:
            chosen[setting.name] = setting.metadata["read"](text)
            if name == "MONGO_URI" and not text.startswith(("mongodb://", "mongodb+srv://")):
                raise ValueError("must be a mongodb:// or mongodb+srv:// URL")
        except ValueError as error:
            problems.append(f"{name} {error}.")
    problems += [
        f"{name} is not a setting. Is it misspelt?"
        for name in sorted(values)
        if name.startswith("AUTHWRIGHT_") and name not in known
    ]
    chosen |= {name: value for name, value in overrides.items() if value is not None}
    settings = _with_issuer(Settings.dev(**chosen) if mode == "dev" else Settings(**chosen))
    problems += settings_problems(settings)
    if problems:
        raise SettingsError(problems)
    return settings


def check_settings(settings: Settings) -> Settings:
    """*settings* with the issuer filled in if it can be. Raises SettingsError, naming every problem."""
    settings = _with_issuer(settings)
    if problems := settings_problems(settings):
        raise SettingsError(problems)
    return settings


def _with_issuer(settings: Settings) -> Settings:
    if settings.issuer or not settings.loopback:
        return settings
    return replace(settings, issuer=f"http://127.0.0.1:{settings.port}")


_ORIGIN: Final = re.compile(r"https?://([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(:\d{1,5})?")
_AUDIENCE: Final = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9\[][!-\"$-~]*")


def settings_problems(settings: Settings) -> list[str]:
    """Everything that forbids a start with *settings*, a sentence each."""
    problems = _issuer_problems(settings) + _database_problems(settings) + _redis_problems(settings)
    if any(_AUDIENCE.fullmatch(audience) is None for audience in settings.audiences):
        problems.append("AUTHWRIGHT_AUDIENCES must hold absolute URLs without a fragment.")
    if not 1 <= settings.port <= 65535:
        problems.append("PORT must be a whole number from 1 to 65535.")
    if settings.argon2_memory_kib * settings.argon2_passes > MAX_ARGON2_WORK:
        problems.append(f"AUTHWRIGHT_ARGON2_MEMORY_KIB times _PASSES must not exceed {MAX_ARGON2_WORK}.")
    if settings.session_idle_seconds > settings.session_seconds:
        problems.append("AUTHWRIGHT_SESSION_IDLE_SECONDS must not exceed AUTHWRIGHT_SESSION_SECONDS.")
    if settings.access_token_seconds >= settings.session_seconds:
        problems.append("AUTHWRIGHT_ACCESS_TOKEN_SECONDS must be less than AUTHWRIGHT_SESSION_SECONDS.")
    for proxy in settings.forwarded_allow_ips:
        try:
            network = ipaddress.ip_network(proxy)
            if network.prefixlen < (8 if network.version == 4 else 16):
                raise ValueError
        except ValueError:
            problems.append("FORWARDED_ALLOW_IPS must name the proxies' addresses or networks, not everybody ('*').")
            break
    if any(_ORIGIN.fullmatch(origin) is None for origin in settings.cors_origins):
        problems.append("AUTHWRIGHT_CORS_ORIGINS must name origins like https://app.example.com; no path, no '*'.")
    problems += _mail_problems(settings) + _trace_problems(settings) + _webhook_problems(settings)
    if settings.is_dev:
        if not settings.loopback:
            problems.append("AUTHWRIGHT_HOST must be a loopback address in dev; use `authwright serve` for others.")
        if settings.forwarded_allow_ips:
            problems.append("FORWARDED_ALLOW_IPS cannot be used in dev, which takes no forwarded requests.")
        if settings.workers != 1:
            problems.append("WEB_CONCURRENCY must be 1 in dev.")
        return problems
    return problems + _serve_problems(settings)


# Scheme and host in lower case, so that there is one spelling; no user, query, fragment or trailing slash.
_ISSUER: Final = re.compile(
    r"(?P<scheme>https?)://(?P<name>[a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?"
    r"(?:/[A-Za-z0-9._~-]+)*"
)


def _issuer_problems(settings: Settings) -> list[str]:
    if not settings.issuer:
        return ["AUTHWRIGHT_ISSUER is required: the https URL under which this server is reached."]
    parts = _ISSUER.fullmatch(settings.issuer)
    if parts is None or not 1 <= int(parts["port"] or 443) <= 65535:
        return ["AUTHWRIGHT_ISSUER must be an ASCII URL without query, fragment, user or trailing slash."]
    scheme, name = parts["scheme"], parts["name"]
    if scheme == "https" or (settings.loopback and is_loopback(name)):
        return []
    return ["AUTHWRIGHT_ISSUER must be https (http only on a loopback address)."]


def _database_problems(settings: Settings) -> list[str]:
    if settings.database_kind == "postgresql":
        return _postgres_problems(settings)
    if settings.database_kind == "mongodb":
        return _mongo_problems(settings)
    try:
        path = settings.database_path
    except ValueError:
        return ["DATABASE_URL must be a sqlite:///, postgresql:// or mongodb:// URL."]
    if path is None:
        return [] if settings.is_dev else ["DATABASE_URL names a database in memory; all would be lost at the end."]
    if settings.database_url and not path.parent.is_dir():
        return [f"DATABASE_URL names a file in {path.parent}, which is not a folder."]
    if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
        return [f"The database {path} can be read by others; run: chmod 600 {path}"]
    return []


def _redis_problems(settings: Settings) -> list[str]:
    if not settings.redis_url:
        return []
    try:
        parts = urlsplit(settings.redis_url)
        good = parts.scheme in ("redis", "rediss", "unix") and bool(parts.hostname or parts.path) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        return ["REDIS_URL must be redis://host:port/number, rediss:// or unix://."]
    if importlib.util.find_spec("redis") is None:
        return ["REDIS_URL is set; install the driver: pip install 'authwright[server,redis]'."]
    return []


def _trace_problems(settings: Settings) -> list[str]:
    if not settings.otlp_endpoint:
        return []
    if re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", settings.otlp_endpoint) is None:
        return ["OTEL_EXPORTER_OTLP_ENDPOINT must be an http or https URL."]
    try:
        found = importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http")
    except ModuleNotFoundError:
        found = None
    if found is None:
        return ["OTEL_EXPORTER_OTLP_ENDPOINT is set; install the exporter: pip install 'authwright[server,otel]'."]
    return []


def _webhook_problems(settings: Settings) -> list[str]:
    if not settings.events_webhook:
        return []
    problems: list[str] = []
    try:
        parts = urlsplit(settings.events_webhook)
        host = parts.hostname or ""
        form = r"[0-9a-f:.]{2,45}" if "[" in parts.netloc else r"(?=.{1,253}$)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*"
        named = re.fullmatch(form, host) is not None
        good = named and parts.port != 0 and not parts.fragment and "@" not in parts.netloc
        good &= re.fullmatch(r"[!-~]+", settings.events_webhook) is not None
        good &= parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    except ValueError:
        good = False
    if not good:
        problems.append("AUTHWRIGHT_EVENTS_WEBHOOK must be an https URL without user and fragment.")
    prefix, _, encoded = settings.events_webhook_secret.partition("_")
    try:
        good = prefix == "whsec" and 24 <= len(base64.b64decode(encoded, validate=True)) <= 64
    except ValueError:
        good = False
    if not good:
        problems.append(
            "AUTHWRIGHT_EVENTS_WEBHOOK_SECRET is required with a webhook: whsec_ and 24 to 64 bytes in base64; for "
            'example: echo "whsec_$(openssl rand -base64 32)"'
        )
    try:
        for network in settings.events_webhook_networks:
            ipaddress.ip_network(network)
    except ValueError:
        problems.append("AUTHWRIGHT_EVENTS_WEBHOOK_NETWORKS must name networks like 10.1.0.0/16.")
    return problems


def _serve_problems(settings: Settings) -> list[str]:
    problems: list[str] = []
    if not settings.secret_key:
        problems.append("SECRET_KEY is required; `authwright init` writes one to .env.")
    for name, value in (("SECRET_KEY", settings.secret_key), ("SECRET_KEY_PREVIOUS", settings.secret_key_previous)):
        if value and (problem := secret_key_problem(value)):
            problems.append(f"{name} {problem}; `authwright init` writes a good one to .env.")
    if settings.argon2_memory_kib < _OWASP_ARGON2.get(settings.argon2_passes, 7168):
        problems.append("AUTHWRIGHT_ARGON2_MEMORY_KIB and _PASSES are below what OWASP recommends (19456 and 2).")
    if settings.metrics_token and re.fullmatch(r"[!-~]{16,}", settings.metrics_token) is None:
        problems.append("METRICS_TOKEN must have 16 or more printable ASCII characters without spaces.")
    if any(re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", host) is None for host in settings.hosts):
        problems.append("AUTHWRIGHT_HOSTS must name hosts in ASCII, with a port where it is not the usual one; no '*'.")
    return problems


# Least memory in KiB for a number of passes: OWASP Password Storage Cheat Sheet.
_OWASP_ARGON2: Final = {1: 47_104, 2: 19_456, 3: 12_288, 4: 9_216}

# Secrets that stand in tutorials and templates, so everybody has them.
_KNOWN_SECRETS: Final = frozenset(
    {
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    }
)
_PLACEHOLDER: Final = re.compile(
    r"change.?(me|this)|replace|generate|random|your.?secret|secret.?key|example|placeholder|password|insecure"
)


def secret_key_problem(text: str) -> str | None:
    """Why *text* cannot be `SECRET_KEY`, or None. It must hold 32 random bytes: 64 hex digits or 43 of base64."""
    lowered = text.lower()
    if re.fullmatch(r"[A-Za-z0-9+/=_-]+", text) is None:
        return "is neither hex nor base64"
    if lowered in _KNOWN_SECRETS or _PLACEHOLDER.search(lowered):
        return "is a known example"
    is_hex = re.fullmatch(r"[0-9a-fA-F]+", text) is not None
    if len(text) < (64 if is_hex else 43):
        return "is shorter than 32 random bytes (43 characters of base64, 64 of hex)"
    if len(set(text)) < 10 or any(text[size:] == text[:-size] for size in range(1, len(text) // 2 + 1)):
        return "is not random"
    return None


def new_secret_key() -> str:
    """32 random bytes as 43 characters of base64url."""
    return secrets.token_urlsafe(32)


def _mail_problems(settings: Settings) -> list[str]:
    if not settings.smtp_url:
        return ["AUTHWRIGHT_MAIL_FROM is set, but no SMTP_URL."] if settings.mail_from else []
    problems: list[str] = []
    try:
        parts = urlsplit(settings.smtp_url)
        good = parts.scheme in ("smtp", "smtps") and bool(parts.hostname) and parts.port != 0
        good &= parts.path in ("", "/") and not parts.query and not parts.fragment
        # Only what the classic login of mail servers can carry.
        good &= (parts.username is None) == (parts.password is None)
    except ValueError:
        good = False
    if not good:
        problems.append("SMTP_URL must be smtp://host:port or smtps://host:port, with user:password@ where needed.")
    if re.fullmatch(r"[!-?A-~]+@[A-Za-z0-9.-]+", settings.mail_from) is None:
        problems.append("AUTHWRIGHT_MAIL_FROM is required with SMTP_URL: the address that mail comes from.")
    return problems


def _postgres_problems(settings: Settings) -> list[str]:
    if problem := _password_problem(settings.database_url):
        return [problem]
    parts = urlsplit(settings.database_url)
    if len(parts.path) < 2 or (not parts.netloc and "host=" not in parts.query):
        return ["DATABASE_URL names no PostgreSQL server and database: postgresql://user:password@host/database."]
    if importlib.util.find_spec("asyncpg") is None:
        return ["DATABASE_URL is PostgreSQL; install its driver: pip install 'authwright[server,postgres]'."]
    return []


def _password_problem(url: str) -> str | None:
    """Something before an `@` that is taken for a host or a path would be shown with the store's name."""
    if "@" in url.partition("://")[2].partition("/")[2].partition("?")[0]:
        return "DATABASE_URL has an @ after the host: write / and @ in a password as %2F and %40."
    return None


def _mongo_problems(settings: Settings) -> list[str]:
    if problem := _password_problem(settings.database_url):
        return [problem]
    scheme, _, rest = settings.database_url.partition("://")
    hosts = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    if scheme not in ("mongodb", "mongodb+srv") or not hosts:
        return ["DATABASE_URL names no MongoDB server: mongodb://user:password@host/database."]
    if importlib.util.find_spec("pymongo") is None:
        return ["DATABASE_URL is MongoDB; install its driver: pip install 'authwright[server,mongo]'."]
    return []


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether *host* (a name or an address) is this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _find(values: Mapping[str, str], names: tuple[str, ...], problems: list[str]) -> tuple[str, str] | None:
    given = [name for each in names for name in (each, f"{each}_FILE") if values.get(name)]
    if not given:
        return None
    if len({values[name] for name in given}) > 1 or len({name.endswith("_FILE") for name in given}) > 1:
        problems.append(f"{' and '.join(given)} are both set; keep one.")
    name = given[0]
    if not name.endswith("_FILE"):
        return name, values[name]
    try:
        return name, Path(values[name]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        problems.append(f"{name} names a file that cannot be read.")
        return None


# What says in `.env` who a production server is; `dev` beside it is somebody else, with a secret of its own.
_SERVE_ONLY: Final = ("secret_key", "secret_key_previous", "issuer", "hosts", "forwarded_allow_ips", "workers")


def _read_dotenv(path: Path | None, mode: Mode) -> Mapping[str, str]:
    if path is None or not path.is_file():
        return {}
    from dotenv import dotenv_values

    values = {name: value for name, value in dotenv_values(path).items() if value is not None}
    if mode == "dev":
        for name in (each for setting in _SERVE_ONLY for each in setting_names(setting)):
            values.pop(name, None)
            values.pop(f"{name}_FILE", None)
    return values


def as_mode(text: str) -> Mode:
    """*text* as a mode. Raises SettingsError."""
    if text not in get_args(Mode):
        raise SettingsError([f"AUTHWRIGHT_MODE must be one of {', '.join(get_args(Mode))}."])
    return cast("Mode", text)
