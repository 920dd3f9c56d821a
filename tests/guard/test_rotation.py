"""Signing keys change while guards verify: nobody notices."""

from pathlib import Path

from under_load import ROTATIONS, rotate_under_load


async def test_r140_twenty_rotations_fail_no_verification(tmp_path: Path) -> None:
    counted = await rotate_under_load(tmp_path, 30_000)
    assert counted["verified"] >= 30_000
    # Most of them with their signature, and none out of a table of what was seen before alone.
    assert counted["signatures"] >= 20_000
    assert counted["failed"] == 0
    # Published early enough: no guard had to ask for a key that it did not know.
    assert counted["unknown"] == 0
    assert counted["keys"] == ROTATIONS + 1
    assert counted["fetched"] > 3
