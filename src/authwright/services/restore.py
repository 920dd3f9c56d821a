"""Make a store that was restored from a backup a new one: nothing that was issued before is good any more.

The backup may lack what was revoked after it. So it gets a new store epoch, in which no older refresh token is good;
new signing keys, so that no older access token is; and no live session. Everybody logs in again.
"""

import secrets

from authwright.domain.event import COMMAND_LINE, event
from authwright.domain.instant import Instant
from authwright.domain.revocation import FOREVER
from authwright.services.keys import Keyring
from authwright.storage.port import Store


async def begin_anew(store: Store, keyring: Keyring, now: Instant) -> int:
    """Turn *store*, which nobody else has open, into one of a new epoch; how many sessions were ended."""
    await store.facts.replace("store_epoch", secrets.token_hex(16))
    ended = await store.sessions.end_everything(because="restored", now=now)
    # What was spent after the backup must not be good once more.
    while await store.users.forget_resets(now=FOREVER, most=1000):
        pass
    for key in keyring.signing_keys(now):
        if key.record.withdrawn_at is None:
            await store.ledger.append(await keyring.withdraw(key.record.id, now))
    await store.events.append(event("store_restored", COMMAND_LINE, now=now, detail=f"{ended} sessions ended"))
    return ended
