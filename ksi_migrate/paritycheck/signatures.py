"""The check that both sides have the contract's methods, with its parameters."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ksi_daemon.site import Site
from ksi_daemon.switch import contract_methods
from ksi_migrate.paritycheck.contrast import Mismatch
from ksi_migrate.paritycheck.settings import Isolated
from ksi_migrate.paritycheck.trial import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ksi_migrate.paritycheck.trial import Trial

OWN = ("open", "close")
"""What every side has beside its contract, without parameters."""

MISSING = "no such method"


async def check(trial: Trial) -> AsyncGenerator[Outcome, None]:
    """One case: names, kinds and defaults of all parameters, on each side as in the contract."""
    area = trial.area
    site = Site(area.name, Isolated(root=trial.scratch.place))
    sync, candidate = area.control(site), area.aio(site)
    found = [
        Mismatch("signatures", f"{name}{wanted}", _signature(sync, name), _signature(candidate, name))
        for name, wanted in _wanted(area.contract).items()
    ]
    yield Outcome("signatures", tuple(one for one in found if not _agree(one)))


def _wanted(contract: type) -> dict[str, str]:
    methods = {name: _signature(contract, name, skip=1) for name in contract_methods(contract)}
    return {**methods, **dict.fromkeys(OWN, "()")}


def _agree(found: Mismatch) -> bool:
    wanted = found.what[found.what.index("(") :]
    return found.sync == found.candidate == wanted


def _signature(owner: Any, name: str, skip: int = 0) -> str:
    """The parameters as text; annotations are left to the type checker, which compares them on its own."""
    method = getattr(owner, name, None)
    if method is None:
        return MISSING
    parameters = list(inspect.signature(method).parameters.values())[skip:]
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return str(inspect.Signature(bare))
