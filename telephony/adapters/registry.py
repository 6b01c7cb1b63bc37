"""Every adapter there is, by name, as the agent's configuration asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from ledger.errors import ConfigError
from telephony.adapters.asterisk import make_asterisk, make_asterisk_json
from telephony.adapters.base import Adapter, MakeAdapter
from telephony.adapters.cucm import make_cucm_cdr, make_cucm_cmr
from telephony.adapters.discreet import DiscreetAdapter
from telephony.adapters.freeswitch import make_freeswitch, make_freeswitch_xml
from telephony.adapters.kamailio import make_kamailio
from telephony.adapters.kamailio_acc import make_kamailio_acc
from telephony.adapters.mapped import MappedSources, make_mapped
from telephony.adapters.opensips import make_opensips
from telephony.adapters.rtcp_xr import make_rtcp_xr
from telephony.adapters.rtpengine import make_rtpengine
from telephony.adapters.vq_report import make_vq_report

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
        "cucm-cdr": make_cucm_cdr,
        "cucm-cmr": make_cucm_cmr,
        "vq-report": make_vq_report,
        "rtcp-xr": make_rtcp_xr,
        "mapped": make_mapped,
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
        by_name: dict[str, Adapter] = {adapter.name: adapter for adapter in made}
        for sources in made:
            # Each mapping takes posts under its own name; in the spool all of them are of one kind.
            for name, adapter in sources.mappings.items() if isinstance(sources, MappedSources) else ():
                if name in by_name:
                    raise ConfigError("the name of an adapter", where=f"sources.mapped.{name}", expected="another name")
                by_name[name] = adapter
        self.by_name: Mapping[str, Adapter] = {name: DiscreetAdapter(adapter) for name, adapter in by_name.items()}
        self.by_kind: Mapping[int, Adapter] = {int(adapter.kind): DiscreetAdapter(adapter) for adapter in made}
