"""``ledgerctl energy``: what is taken for the energy of a call, and where a call costs the least carbon.

Source: docs/energy.md.
"""

from __future__ import annotations

from typing import Annotated

import typer

energy_app = typer.Typer(no_args_is_help=True, help="Defaults for energy, and places by carbon. Asks no node.")

Json = Annotated[bool, typer.Option("--json", help="For machines.")]
Basis = Annotated[str, typer.Option("--basis", help="Carbon basis of the chain: lifecycle or direct.")]


@energy_app.command()
def defaults(as_json: Json = False) -> None:
    """Show what is taken for each class of device where the configuration does not say."""
    from node.cli.output import print_json, print_rows
    from telephony.energy_defaults import DEVICES

    rows = [
        {
            "device_class": device_class.name.lower(),
            "device_mw": default.power_mw,
            "network_method": default.network_method.name.lower(),
            "boundary": default.boundary.name.lower(),
            "year": default.year,
            "source": default.source,
        }
        for device_class, default in DEVICES.items()
    ]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, empty="")


@energy_app.command()
def zones(basis: Basis = "lifecycle", as_json: Json = False) -> None:
    """Show the grid zones with their carbon intensity, cleanest first."""
    from ledger.models.carbon import basis_of
    from ledger.models.tables import INTENSITY_MG_PER_KWH
    from node.cli.output import print_json, print_rows

    _check_basis(basis)
    rows = [
        {"zone": zone, "mg_per_kwh": intensity, "table": table_id}
        for (table_id, zone), intensity in sorted(INTENSITY_MG_PER_KWH.items(), key=lambda item: (item[1], item[0]))
        if basis_of(table_id) == basis
    ]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, empty="")


@energy_app.command()
def pops(
    pop: Annotated[list[str], typer.Option("--pop", help="NAME=ZONE[,PUE[,SIP-URI]]; give it once for each place.")],
    server_mw: Annotated[
        int, typer.Option(help="A call's share of your servers: milliwatts of the machine over its calls at once.")
    ],
    duration: Annotated[int, typer.Option("--duration", help="Seconds of the call.")] = 180,
    codec: Annotated[str, typer.Option(help="Its codec, by RTP name.")] = "PCMA",
    basis: Basis = "lifecycle",
    dispatcher: Annotated[int, typer.Option(help="Print a dispatcher.list for Kamailio with this set.")] = -1,
    as_json: Json = False,
) -> None:
    """Rank places by the carbon of a call carried there, PUE included."""
    from node.cli.output import print_json, print_rows
    from telephony.carbon_routing import TypicalCall, dispatcher_list, parse_pop, rank_pops

    _check_basis(basis)
    ranked = rank_pops([parse_pop(text) for text in pop], TypicalCall(server_mw, duration, codec), basis)
    if dispatcher >= 0:
        typer.echo(dispatcher_list(ranked, dispatcher), nl=False)
    elif as_json:
        print_json([one._asdict() for one in ranked])
    else:
        rows = [
            {
                "place": one.name,
                "zone": one.grid_zone,
                "PUE": f"{one.pue_milli / 1000:.3g}",
                "mg/kWh": one.intensity_mg_per_kwh,
                "table": one.table_id,
                "J": f"{one.energy_mj / 1000:.1f}",
                "mg CO2e": f"{one.co2_ug / 1000:.3f}",
            }
            for one in ranked
        ]
        print_rows(rows, empty="")


def _check_basis(basis: str) -> None:
    from ledger.errors import ConfigError
    from ledger.models.tables import BASES

    if basis not in BASES:
        raise ConfigError("no such carbon basis", where="--basis", expected=" or ".join(BASES), actual=basis)
