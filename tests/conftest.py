"""What all tests share: a clean environment, programs that may be missing, and servers on a clock of their own."""

import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authwright.config import SETTINGS, setting_names
from databases import mongo, postgres, redis
from harness import Clock, Service, open_service
from issued import ISSUED, note_at_the_source

ROOT = Path(__file__).parents[1]
NODE = ROOT / ".venv/node/node_modules"
_NAMES = {name for setting in SETTINGS for name in setting_names(setting.name)}
for _name in [name for name in os.environ if name.startswith("AUTHWRIGHT_") or name.removesuffix("_FILE") in _NAMES]:
    del os.environ[_name]


# Databases under test wait for the disk more than for anything else. What is tested here are killed processes, not
# power cuts, and what they wrote survives in memory as well.
_MEMORY = Path("/dev/shm")
if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 8 * 2**30:
    os.environ["TMPDIR"], tempfile.tempdir = str(_MEMORY), None

note_at_the_source()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    forbidden = os.environ.get("TESTS_FORBID_SKIPS") == "1"
    for item in items:
        if not item.nodeid.endswith(item.name):
            # Schemathesis gives each of its tests a name and all of them one id; of those that share an id, several
            # processes run one.
            item._id = type(item._id).parse(f"{item.nodeid.rpartition('::')[0]}::{item.name}")
        needed = [(marker.args[0], shutil.which(marker.args[0])) for marker in item.iter_markers("program")]
        needed += [(marker.args[0], (NODE / marker.args[0]).exists()) for marker in item.iter_markers("npm")]
        needed += [(marker.args[0], (ROOT / marker.args[0]).exists()) for marker in item.iter_markers("made")]
        for name, found in needed:
            if not found:
                item.add_marker(pytest.mark.missing(name) if forbidden else pytest.mark.skip(reason=f"needs {name}"))
    assert len({item.nodeid for item in items}) == len(items)
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Files that take long come first, so that none is left to one process at the end.
        items.sort(key=lambda item: item.path.parent.name != "live")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("missing"):
        pytest.fail(f"{marker.args[0]} is missing, and skips are forbidden", pytrace=False)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if hasattr(report, "node"):
        # Of another process, which has looked at it already.
        return
    for name, text in report.sections:
        ISSUED.search(text.encode(), f"{name} of {report.nodeid}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config: Any = session.config
    # Where the tests run in several processes, each looks at what it left; this one has only run them.
    if not config.getoption("numprocesses", None):
        ISSUED.search_files(config._tmp_path_factory.getbasetemp())
    if hasattr(config, "workeroutput"):
        config.workeroutput["issued"] = ISSUED.told()
    if ISSUED.verdict() is not None:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A process that ran tests has ended; *error*: not by itself."""
    ISSUED.add(node.workeroutput["issued"] if error is None else None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    kept: Counter[tuple[str, str]] = Counter()
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            where = re.search(r"^tests/contract/.*[\[-](sqlite-memory|sqlite-file|postgresql|mongodb)\b", report.nodeid)
            if where:
                kept[where[1], outcome] += 1
    for store in sorted({store for store, _ in kept}):
        counts = ", ".join(f"{count} {outcome}" for (each, outcome), count in kept.items() if each == store)
        terminalreporter.write_line(f"the store's promises on {store:14} {counts}")
    found = ISSUED.verdict() or "none of them stands where it must not"
    terminalreporter.write_line(
        f"{ISSUED.count} secrets were issued; {ISSUED.searched} logs and databases searched: {found}"
    )


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server."""
    with postgres() as url:
        yield url


@pytest.fixture(scope="session")
def mongo_server() -> Iterator[str]:
    """The URL of a server that speaks MongoDB's protocol."""
    with mongo() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """The URL of a Redis."""
    with redis() as url:
        yield url


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def service(clock: Clock) -> AsyncIterator[Service]:
    """A development server in memory."""
    async with open_service(clock=clock) as opened:
        yield opened


@pytest.fixture
def opened_service(clock: Clock) -> Callable[..., object]:
    """`open_service` on the test's clock."""
    return lambda **settings: open_service(clock=clock, **settings)
