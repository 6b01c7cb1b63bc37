"""Every adapter there is, by name, as the agent's configuration asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from ledger.errors import ConfigError
from telephony.adapters.base import Adapter, MakeAdapter
from telephony.adapters.cucm import make_cucm_cdr, make_cucm_cmr
from telephony.adapters.kamailio import make_kamailio

MAKERS: Final[Mapping[str, MakeAdapter]] = MappingProxyType(
    {
        "kamailio": make_kamailio,
        "cucm-cdr": make_cucm_cdr,
        "cucm-cmr": make_cucm_cmr,
    }
)
"""How an adapter is made, by the name of its table in the configuration, ``[sources.NAME]``."""


class Adapters:
    """The adapters of one agent."""

    def __init__(self, options: Mapping[str, Mapping[str, Any]] = MappingProxyType({})) -> None:
        """Make all of them, each with its table of ``options``. Raises ConfigError for a name there is not."""
        for name in options:
            if name not in MAKERS:
                raise ConfigError("no such platform", where=f"sources.{name}", expected=", ".join(sorted(MAKERS)))
        made = [make(options.get(name, {})) for name, make in MAKERS.items()]
        self.by_name: Mapping[str, Adapter] = {adapter.name: adapter for adapter in made}
        self.by_kind: Mapping[int, Adapter] = {int(adapter.kind): adapter for adapter in made}
