"""``ledgerctl mos``: what a call over a given network sounds like, and where the points went.

Numbers of the command line become integers exactly, without a float between.
Source: docs/quality.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from ledger.cdr import QualityMethod
    from ledger.models.explain import Network, Rating
    from ledger.models.tables import Codec

CODEC_ALIASES: Final = {
    "g711": "PCMU",
    "g711u": "PCMU",
    "g711ulaw": "PCMU",
    "ulaw": "PCMU",
    "g711a": "PCMA",
    "g711alaw": "PCMA",
    "alaw": "PCMA",
    "g7231": "G723-6.3",
    "g723": "G723-6.3",
    "g726": "G726-32",
    "gsmfr": "GSM",
    "g7222": "AMR-WB",
}
"""What codecs are called besides their RTP names, without points and dashes."""

RTT_MS_MAX: Final = 4_000
JITTER_MS_MAX: Final = 1_000
BURST_RATIO_MAX: Final = 100
IE_MAX: Final = 95
BPL_MAX: Final = 100
PTIME_MS_DEFAULT: Final = 20


def mos(
    codec: Annotated[str, typer.Option("--codec", help="RTP name or usual name, as G.711; see --list.")] = "",
    rtt: Annotated[str, typer.Option("--rtt", help="Round trip in ms.")] = "0",
    jitter: Annotated[str, typer.Option("--jitter", help="Jitter in ms.")] = "0",
    loss: Annotated[str, typer.Option("--loss", help="Packets lost, in percent.")] = "0",
    method: Annotated[str, typer.Option("--method", help="[default: the E-model of the codec's band]")] = "",
    burst_ratio: Annotated[str, typer.Option("--burst-ratio", help="1: losses are random; more: in bursts.")] = "1",
    buffer: Annotated[str, typer.Option("--jitter-buffer", help="Its delay in ms. [default: twice the jitter]")] = "",
    ptime: Annotated[int, typer.Option("--ptime", help="Packet time in ms. [default: 20, or the codec's]")] = 0,
    plc: Annotated[bool, typer.Option("--plc", help="The receiver conceals lost packets.")] = False,
    ie: Annotated[str, typer.Option("--ie", help="Your own Ie for the codec, with --bpl.")] = "",
    bpl: Annotated[str, typer.Option("--bpl", help="Your own Bpl for the codec, with --ie.")] = "",
    list_codecs: Annotated[
        bool, typer.Option("--list", help="List the codecs, and what they can be rated by.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Rate a call from round trip, jitter and loss: R, MOS, class, and where the points went. Asks no node."""
    from ledger.errors import ConfigError, FieldError
    from ledger.models.explain import Network, explain
    from node.cli.output import print_json, print_rows

    if list_codecs:
        rows = _codec_rows()
        print_json(rows) if as_json else print_rows(rows, empty="")
        return
    row = _with_own_values(find_codec(codec, ptime, plc=plc), ie, bpl)
    network = Network(
        rtt_us=_thousandths("--rtt", rtt, RTT_MS_MAX),
        jitter_us=_thousandths("--jitter", jitter, JITTER_MS_MAX),
        loss_ppm=_thousandths("--loss", loss, 100) * 10,
        burst_milli=_thousandths("--burst-ratio", burst_ratio, BURST_RATIO_MAX, least=1),
        buffer_us=_thousandths("--jitter-buffer", buffer, JITTER_MS_MAX) if buffer else None,
    )
    chosen = _method(method, row)
    try:
        rating = explain(row, chosen, network)
    except FieldError as error:
        where = f"--{error.where.replace('_', '-')}"
        hint = error.hint.replace("bring Ie and Bpl along", "give your own with --ie and --bpl; see --list")
        raise ConfigError(error.what, where=where, expected=error.expected, actual=error.actual, hint=hint) from None
    if as_json:
        print_json(_as_json(rating, row, network))
    else:
        _print(rating, row, network)


def find_codec(name: str, ptime_ms: int = 0, *, plc: bool = False) -> Codec:
    """Return the registry's row of a codec by RTP name or usual name, packet time and loss concealment.

    ptime_ms: 0 takes 20 ms where the codec has such a row, else its first. A codec that has one way of concealment
    only has it whatever ``plc`` says. Raises ConfigError with what there is.
    """
    from ledger.errors import ConfigError
    from ledger.models.tables import CODECS

    voices = [codec for codec in CODECS.values() if codec.band]
    names = list(dict.fromkeys(codec.name for codec in voices))
    if not name:
        hint = "ledgerctl mos --codec G.711 --rtt 120 --jitter 12 --loss 0.8; ledgerctl mos --list shows the codecs"
        raise ConfigError("no codec", where="--codec", hint=hint)
    wanted = _plain(CODEC_ALIASES.get(_plain(name), name))
    rows = [codec for codec in voices if _plain(codec.name) == wanted]
    if not rows:
        raise ConfigError("no such codec", where="--codec", expected=", ".join(names), actual=name)
    if len({codec.concealment for codec in rows}) > 1:
        rows = [codec for codec in rows if (codec.concealment == "plc") == plc]
    elif plc and rows[0].concealment != "plc":
        raise ConfigError(f"the registry has no {rows[0].name} with loss concealment", where="--plc")
    if not ptime_ms:
        return next((codec for codec in rows if codec.packet_us == 1000 * PTIME_MS_DEFAULT), rows[0])
    for codec in rows:
        if codec.packet_us == 1000 * ptime_ms:
            return codec
    known = ", ".join(str(codec.packet_us // 1000) for codec in rows)
    raise ConfigError(f"no such packet time of {rows[0].name}", where="--ptime", expected=known, actual=ptime_ms)


def _plain(name: str) -> str:
    """Return a codec's name as it is compared: small letters and digits."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _thousandths(where: str, text: str, most: int, *, least: int = 0) -> int:
    """Return a decimal number as thousandths; raises ConfigError for text that is none, or out of bounds."""
    from decimal import Decimal, InvalidOperation

    from ledger.errors import ConfigError

    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    # A NaN compares as an error, so it is asked for first.
    if not number.is_finite() or not least <= number <= most:
        raise ConfigError("out of bounds", where=where, expected=f"a number from {least} to {most}", actual=text)
    return int((number * 1000).to_integral_value())


def _with_own_values(codec: Codec, ie: str, bpl: str) -> Codec:
    """Return the row with the caller's own Ie and Bpl, where both are given."""
    from ledger.errors import ConfigError

    if not ie and not bpl:
        return codec
    if not ie or not bpl:
        raise ConfigError("Ie and Bpl go together", where="--bpl" if ie else "--ie", expected="both, or neither")
    ie_milli = _thousandths("--ie", ie, IE_MAX)
    bpl_milli = _thousandths("--bpl", bpl, BPL_MAX, least=1)
    # Whoever brings them along vouches for them.
    return codec._replace(ie_milli=ie_milli, bpl_milli=bpl_milli, grade="A")


def _method(name: str, codec: Codec) -> QualityMethod:
    """Return the QualityMethod of that name, as ``g107.1`` or ``rtpengine-13``; of the codec's band without one."""
    from ledger.errors import ConfigError
    from ledger.models.explain import METHODS, method_name, method_of

    own = method_of(codec)
    if not name and own is not None:
        return own
    known = {method_name(method): method for method in METHODS}
    found = known.get(name.lower().replace("_", "-").replace("g.107", "g107").replace("g107-", "g107."))
    if found is None:
        raise ConfigError("no such method to compute by", where="--method", expected=", ".join(known), actual=name)
    return found


def _codec_rows() -> list[dict[str, Any]]:
    """Return the voice codecs of the registry, with what each can be rated by."""
    from ledger.models.explain import method_name, method_of
    from ledger.models.tables import CODECS

    rows = []
    for codec in CODECS.values():
        if not codec.band:
            continue
        model = method_of(codec)
        is_known = codec.ie_milli is not None and codec.bpl_milli is not None and codec.grade in {"A", "B"}
        rows.append(
            {
                "codec": codec.name,
                "ptime": f"{codec.packet_us // 1000} ms",
                "concealment": codec.concealment,
                "band": codec.band,
                "Ie": None if codec.ie_milli is None else _fixed(codec.ie_milli, 1),
                "Bpl": None if codec.bpl_milli is None else _fixed(codec.bpl_milli, 1),
                "grade": codec.grade,
                "E-model": method_name(model) if model and is_known else "unratable",
            }
        )
    return rows


def _fixed(milli: int, decimals: int) -> str:
    """Return thousandths as a decimal number, rounded half away from zero: 12345 with 2 is ``12.35``."""
    unit = 10 ** (3 - decimals)
    rounded = (abs(milli) + unit // 2) // unit
    whole, part = divmod(rounded, 10**decimals)
    return f"{'-' if milli < 0 < rounded else ''}{whole}.{part:0{decimals}d}"


def _spoken(codec: Codec) -> str:
    """Return a registry row in words: ``PCMU, 20 ms, without loss concealment``."""
    concealment = {"plc": ", with loss concealment", "none": ", without loss concealment"}.get(codec.concealment, "")
    return f"{codec.name}, {codec.packet_us // 1000} ms{concealment}"


def _classes(network: Network) -> dict[str, str]:
    from ledger.models import scales

    return {
        "round_trip": scales.rtt_class(network.rtt_us),
        "jitter": scales.jitter_class(network.jitter_us),
        "loss": scales.loss_class(network.loss_ppm),
    }


def _as_json(rating: Rating, codec: Codec, network: Network) -> dict[str, Any]:
    """Return a rating with integers in the units of a record."""
    from ledger.cdr import MosKind
    from ledger.models import scales
    from ledger.models.explain import best_mos_milli, method_name

    return {
        "method": method_name(rating.method),
        "band": rating.band.name.lower(),
        "scale": scales.mos_name(MosKind.CQ, rating.band),
        "codec": {"row": codec.row, "name": codec.name, "packet_us": codec.packet_us, "concealment": codec.concealment},
        "r_milli": rating.r_milli,
        "mos_milli": rating.mos_milli,
        "mos_milli_best": best_mos_milli(rating),
        "class": scales.mos_class(rating.mos_milli),
        "points_milli": {
            "start": rating.start_milli,
            "delay": rating.delay_milli,
            "codec": rating.codec_milli,
            "loss": rating.loss_milli,
        },
        "one_way_us": rating.one_way_us if rating.budget else None,
        "budget_us": {part.name: part.us for part in rating.budget},
        "classes": _classes(network),
        "remarks": rating.remarks,
    }


def _print(rating: Rating, codec: Codec, network: Network) -> None:
    """Print a rating for a person."""
    from ledger.cdr import MosKind
    from ledger.models import scales
    from ledger.models.explain import best_mos_milli, method_name
    from node.cli.output import print_line, print_rows

    verdict = scales.mos_class(rating.mos_milli)
    name = scales.mos_name(MosKind.CQ, rating.band)
    print_line(f"R {_fixed(rating.r_milli, 2)}  MOS {_fixed(rating.mos_milli, 2)}  {verdict}")
    best = f"{name}, {rating.band.name.lower().replace('_', '-')}; at best {_fixed(best_mos_milli(rating), 2)}"
    print_line(f"{method_name(rating.method)} on {_spoken(codec)} ({best})")
    print_line("")
    rows: list[dict[str, Any]] = [
        {"where the points went": "start", "ms one way": None, "R": _fixed(rating.start_milli, 2)},
        *(
            {"where the points went": f"  {part.name}", "ms one way": _fixed(part.us, 1), "R": None}
            for part in rating.budget
        ),
        {
            "where the points went": "delay",
            "ms one way": _fixed(rating.one_way_us, 1) if rating.budget else None,
            "R": _fixed(-rating.delay_milli, 2),
        },
        {"where the points went": "codec", "ms one way": None, "R": _fixed(-rating.codec_milli, 2)},
        {"where the points went": "loss", "ms one way": None, "R": _fixed(-rating.loss_milli, 2)},
    ]
    print_rows(rows, empty="")
    print_line("")
    print_line("  ".join(f"{what.replace('_', ' ')}: {verdict}" for what, verdict in _classes(network).items()))
    for remark in rating.remarks:
        print_line(remark)
