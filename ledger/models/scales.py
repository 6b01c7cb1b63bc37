"""The scales that figures of quality stand on, and the words that people are told.

ITU-T P.800.1 sets MOS of narrowband, wideband, super-wideband and fullband calls apart: 4.4 is the best narrowband
call there is, and a fair wideband one. Words here are therefore a help for people and no part of a record; a figure is
always shown with its method and band.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ledger.cdr import Band, MosKind, QualityMethod
from ledger.models import emodel, emodel_wide, freeswitch, rtpengine, rtpengine13

R_MILLI_MAX: Final[Mapping[Band, int]] = MappingProxyType(
    {
        Band.NARROWBAND: emodel.R_MILLI_MAX,
        Band.WIDEBAND: emodel_wide.WIDEBAND.r0_milli,
        Band.SUPER_WIDEBAND: emodel_wide.FULLBAND.r0_milli,
        Band.FULLBAND: emodel_wide.FULLBAND.r0_milli,
    }
)
"""Top of the R scale of each band: G.107, G.107.1, G.107.2; the last also for super-wideband, which has no own."""

MOS_MILLI_MAX: Final[Mapping[Band, int]] = MappingProxyType(
    {Band.NARROWBAND: 4_500, Band.WIDEBAND: 5_000, Band.SUPER_WIDEBAND: 5_000, Band.FULLBAND: 5_000}
)
"""Most that anybody's MOS can be: 4.5 where G.107's cubic is behind it, 5 on the scale of listening tests."""

METHOD_MOS_MILLI_MAX: Final[Mapping[QualityMethod, int]] = MappingProxyType(
    {
        QualityMethod.G107: emodel.mos_milli(emodel.R0_MILLI),
        QualityMethod.G107_1: emodel.MOS_MILLI_MAX,
        QualityMethod.G107_2: emodel.MOS_MILLI_MAX,
        QualityMethod.RTPENGINE_10: rtpengine.MOS_MILLI_MAX,
        QualityMethod.RTPENGINE_13: rtpengine13.MOS_MILLI_MAX,
        QualityMethod.FREESWITCH: freeswitch.MOS_MILLI_MAX,
    }
)
"""The best each formula can give; for rfc3611 and measured the band's bound holds (``mos_milli_max``)."""

BAND_LETTERS: Final[Mapping[Band, str]] = MappingProxyType(
    {Band.NARROWBAND: "N", Band.WIDEBAND: "W", Band.SUPER_WIDEBAND: "S", Band.FULLBAND: "F"}
)
"""What P.800.1 writes behind MOS-LQ, MOS-CQ ... for the band."""

GOOD, FAIR, POOR = "good", "fair", "poor"

MOS_CLASSES_MILLI: Final = (
    (4_300, "very good"),
    (4_000, "good"),
    (3_600, "fair"),
    (3_100, "bad"),
    (2_600, "not recommended"),
)
"""Least MOS of each class, best first; below the last it is very bad (G.107 Annex B, table B.1: R 90, 80, 70 ...)."""

WORST_CLASS: Final = "very bad"


def mos_milli_max(method: QualityMethod, band: Band) -> int:
    """Return the greatest MOS in thousandths that a record of this method and band can carry."""
    if method is QualityMethod.RTPENGINE_13 and band is Band.FULLBAND:
        return rtpengine13.FULLBAND_MOS_MILLI_MAX
    return min(METHOD_MOS_MILLI_MAX.get(method, MOS_MILLI_MAX[band]), MOS_MILLI_MAX[band])


def mos_class(mos_milli: int) -> str:
    """Return what people call a MOS, given in thousandths: ``very good`` from 4.3 down to ``very bad`` below 2.6.

    Classes are the same for every band, since each band's MOS stands on its own scale: 4.41, where narrowband ends,
    is very good for a narrowband call.
    """
    return next((name for least, name in MOS_CLASSES_MILLI if mos_milli >= least), WORST_CLASS)


def mos_name(kind: MosKind, band: Band) -> str:
    """Return the name of a MOS by P.800.1, estimated by a model of the network: ``MOS-CQEN``."""
    return f"MOS-{kind.name}E{BAND_LETTERS[band]}"


def jitter_class(jitter_us: int) -> str:
    """Return good up to 10 ms, fair up to 30 ms, else poor."""
    return GOOD if jitter_us <= 10_000 else FAIR if jitter_us <= 30_000 else POOR


def loss_class(loss_ppm: int) -> str:
    """Return good below 0.5 %, fair below 0.9 %, else poor."""
    return GOOD if loss_ppm < 5_000 else FAIR if loss_ppm < 9_000 else POOR


def level_class(level_db: int) -> str:
    """Return good above -40 dB, fair above -80 dB, else poor: how loud the listener's audio is."""
    return GOOD if level_db > -40 else FAIR if level_db > -80 else POOR


def rtt_class(rtt_us: int) -> str:
    """Return good below 200 ms, fair below 300 ms, else poor."""
    return GOOD if rtt_us < 200_000 else FAIR if rtt_us < 300_000 else POOR
