"""`authwright` with these arguments, that gets `kill -9` in the middle of an ending on MongoDB: the session has ended,
and the ledger does not tell. It waits for that until the file DYING is there: `python tests/dying.py serve`.
"""

import os
import signal
from pathlib import Path
from typing import Any

from authwright.cli.main import app
from authwright.storage.mongo.ledger import MongoLedger

append = MongoLedger.append


async def dying(self: MongoLedger, *arguments: Any, **options: Any) -> int:
    if Path(os.environ["DYING"]).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return await append(self, *arguments, **options)


MongoLedger.append = dying  # type: ignore[method-assign]
app()
