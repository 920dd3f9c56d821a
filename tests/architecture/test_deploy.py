"""Deployment files that no test can run here: what they name exists, and what they promise stands in them."""

import json
import re
import tomllib
from pathlib import Path

import yaml

from authwright.config import SETTINGS, setting_names

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KNOWN = {name for setting in SETTINGS for name in setting_names(setting.name)}


def test_the_dockerfile_copies_what_there_is_and_ends_as_nobody() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    build, final = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    sources = [
        source for line in re.findall(r"^COPY (?!--from)(.*)$", build, re.MULTILINE) for source in line.split()[:-1]
    ]
    assert sources
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in sources:
        assert (ROOT / source).exists()
        assert source in allowed
    assert "--require-hashes" in build
    # Nothing of the build but what was installed.
    assert re.findall(r"^COPY (.*)$", final, re.MULTILINE) == ["--from=build /opt/authwright /opt/authwright"]
    assert re.search(r"^USER 10001$", final, re.MULTILINE)
    assert final.index("USER 10001") < final.index("ENTRYPOINT")
    assert "/readyz" in final
    assert json.loads(re.findall(r"^ENTRYPOINT (.*)$", final, re.MULTILINE)[0]) == ["authwright"]


def test_the_compose_file_starts_databases_only_where_they_are_asked_for() -> None:
    document = yaml.safe_load((DEPLOY / "compose.yml").read_text())
    services = document["services"]
    (network,) = document["networks"]["default"]["ipam"]["config"]
    assert services["authwright"]["environment"]["FORWARDED_ALLOW_IPS"] == network["gateway"]
    profiles = {name: service.get("profiles") for name, service in services.items()}
    assert profiles == {
        "authwright": None,
        "migrate": None,
        "postgres": ["postgres"],
        "mongo": ["mongo"],
        "redis": ["redis"],
    }
    for name in ("authwright", "migrate"):
        service = services[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        assert set(service["depends_on"]) <= set(services)


def test_what_deployment_files_set_are_settings() -> None:
    for file in DEPLOY.rglob("*"):
        if file.is_file():
            named = set(
                re.findall(r"\b(AUTHWRIGHT_[A-Z_]+|SECRET_KEY|DATABASE_URL|MONGO_URI|REDIS_URL)\b", file.read_text())
            )
            assert named <= KNOWN, file


def test_deployment_files_name_the_version_there_is() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((DEPLOY / "helm/authwright/Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    for host in ("lambda", "vercel"):
        assert f"authwright-{version}-py3-none-any.whl" in (DEPLOY / host / "requirements.txt").read_text()
