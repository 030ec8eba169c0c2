"""Configuration files and their backups: YAML, JSON and text of five types, each in a place of its own.

Files: the configuration files; `var/tmp/backups/config/`, a copy and a record for each backup; locks in
`var/migrate/locks/`. Events: `config:*`, `runtime:config:*`. Tells `config:changed`, `config:rolled_back`,
`daemon:config_reload`, `modules:reload` and `composition:reload` to whoever handles them.
"""

from ksi_daemon.area import Area
from ksi_daemon.config.aio import AsyncConfigFiles
from ksi_daemon.config.contract import ConfigFiles
from ksi_daemon.config.exercise import EXERCISE
from ksi_daemon.config.service import ConfigService
from ksi_daemon.config.sync import SyncConfigFiles

AREA = Area(
    name="config",
    title="configuration files and their backups",
    kind="replace",
    week=3,
    contract=ConfigFiles,
    sync=SyncConfigFiles,
    aio=AsyncConfigFiles,
    service=ConfigService,
    exercise=EXERCISE,
)
