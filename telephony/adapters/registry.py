"""Every adapter there is, by name, as the agent's configuration asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from ledger.errors import ConfigError
from telephony.adapters.asterisk import make_asterisk, make_asterisk_json
from telephony.adapters.base import Adapter, MakeAdapter
from telephony.adapters.freeswitch import make_freeswitch, make_freeswitch_xml
from telephony.adapters.kamailio import make_kamailio
from telephony.adapters.kamailio_acc import make_kamailio_acc
from telephony.adapters.rtpengine import make_rtpengine
from telephony.adapters.opensips import make_opensips

MAKERS: Final[Mapping[str, MakeAdapter]] = MappingProxyType(
    {
        "kamailio": make_kamailio,
        "kamailio-acc": make_kamailio_acc,
        "rtpengine": make_rtpengine,
        "freeswitch": make_freeswitch,
        "freeswitch-xml": make_freeswitch_xml,
        "asterisk": make_asterisk,
        "asterisk-json": make_asterisk_json,
        "opensips": make_opensips,
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
