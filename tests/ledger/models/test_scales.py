"""Scales, ceilings, and the words for people."""

import pytest

from ledger.cdr import Band, MosKind, QualityMethod
from ledger.models import scales

N, W, S, F = Band.NARROWBAND, Band.WIDEBAND, Band.SUPER_WIDEBAND, Band.FULLBAND


def test_every_band_has_its_scales():
    assert [scales.R_MILLI_MAX[band] for band in (N, W, S, F)] == [100_000, 129_000, 148_000, 148_000]
    assert set(scales.MOS_MILLI_MAX) == set(scales.R_MILLI_MAX) == set(scales.BAND_LETTERS) == set(Band)


@pytest.mark.parametrize(
    ("method", "narrowband", "fullband"),
    [
        (QualityMethod.G107, 4_409, 4_409),
        (QualityMethod.G107_1, 4_500, 4_500),
        (QualityMethod.G107_2, 4_500, 4_500),
        (QualityMethod.RTPENGINE_10, 4_400, 4_400),
        (QualityMethod.RTPENGINE_13, 4_300, 4_400),
        (QualityMethod.FREESWITCH, 4_500, 4_500),
        (QualityMethod.RFC3611, 4_500, 5_000),
        (QualityMethod.MEASURED, 4_500, 5_000),
    ],
)
def test_ceilings(method, narrowband, fullband):
    assert scales.mos_milli_max(method, N) == narrowband
    assert scales.mos_milli_max(method, F) == fullband


def test_every_method_has_a_ceiling():
    assert all(scales.mos_milli_max(method, band) >= 4_300 for method in QualityMethod for band in Band)


@pytest.mark.parametrize(
    ("mos_milli", "name"),
    [
        (5_000, "very good"),
        (4_409, "very good"),
        (4_300, "very good"),
        (4_299, "good"),
        (4_000, "good"),
        (3_999, "fair"),
        (3_600, "fair"),
        (3_599, "bad"),
        (3_100, "bad"),
        (3_099, "not recommended"),
        (2_600, "not recommended"),
        (2_599, "very bad"),
        (1_000, "very bad"),
    ],
)
def test_mos_classes(mos_milli, name):
    assert scales.mos_class(mos_milli) == name


@pytest.mark.parametrize(
    ("classify", "good", "fair", "poor"),
    [
        (scales.jitter_class, 10_000, 10_001, 30_001),
        (scales.loss_class, 4_999, 5_000, 9_000),
        (scales.level_class, -39, -40, -80),
        (scales.rtt_class, 199_999, 200_000, 300_000),
    ],
    ids=["jitter", "loss", "level", "round trip"],
)
def test_classes_of_what_the_network_does(classify, good, fair, poor):
    assert [classify(value) for value in (good, fair, poor)] == ["good", "fair", "poor"]


def test_fair_reaches_up_to_its_bound():
    assert scales.jitter_class(30_000) == scales.loss_class(8_999) == scales.level_class(-79) == "fair"
    assert scales.rtt_class(299_999) == "fair"


def test_names_of_p_800_1():
    assert scales.mos_name(MosKind.CQ, N) == "MOS-CQEN"
    assert scales.mos_name(MosKind.LQ, F) == "MOS-LQEF"
