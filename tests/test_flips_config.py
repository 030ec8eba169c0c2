"""Configuration behind the switch: what is under way when the sides change."""

from __future__ import annotations

import asyncio
from typing import Any

from ksi_daemon.config import AREA
from ksi_daemon.flags import Stage
from ksi_daemon.switch import Switch
from tests.configs import encoded, site_of, target


async def test_flips_under_load(tmp_path, count):
    """Sets, backups and rollbacks of many files while the sides change: no key is lost, nothing is torn."""
    site = site_of(tmp_path)
    switch: Any = Switch(AREA, site)
    await switch.open(Stage.SYNC)
    number = count(40, 2_000)

    async def work(path):
        named = target(site, path)
        for n in range(number // 4):
            await switch.put(named, f"k{n}", encoded(n), n % 3 == 0, 0.0)
            await switch.backup(named, "", 0.0)
            made = await switch.rollback(named, "", 0.0)
            assert made.file_path == str(tmp_path / path)
            assert (await switch.get(named, f"k{n}")).value == encoded(n)

    async def flip():
        for n in range(6):
            await switch.flip(Stage.ASYNC if n % 2 == 0 else Stage.SYNC)
            await asyncio.sleep(0.02)

    await asyncio.gather(flip(), *(work(f"f{n}.yaml") for n in range(4)))
    for n in range(4):
        found = await switch.get(target(site, f"f{n}.yaml"), "*")
        assert found.value == encoded({f"k{k}": k for k in range(number // 4)})
    await switch.close()
