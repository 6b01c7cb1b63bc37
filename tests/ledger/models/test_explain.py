"""Where the points of a call go: the parts add up to the rating that a record would carry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.cdr import Band, QualityMethod
from ledger.errors import FieldError
from ledger.models import delay, emodel, explain, freeswitch, rtpengine, rtpengine13
from ledger.models.explain import Network
from ledger.models.tables import CODECS

PCMU, G729A, G722, OPUS, T38 = (CODECS[row] for row in (1, 20, 70, 80, 100))
RATABLE = [codec for codec in CODECS.values() if codec.is_ratable]
WIDE = {
    QualityMethod.G107_1: G722._replace(ie_milli=13_000, bpl_milli=20_000, grade="A"),
    QualityMethod.G107_2: OPUS._replace(ie_milli=10_000, bpl_milli=20_000, grade="A"),
}

networks = st.builds(
    Network,
    rtt_us=st.integers(0, 3_000_000),
    jitter_us=st.integers(0, 200_000),
    loss_ppm=st.integers(0, 1_000_000),
    burst_milli=st.integers(1_000, 20_000),
    buffer_us=st.none() | st.integers(0, 200_000),
)


def test_the_call_of_the_guide():
    rating = explain.explain(PCMU, QualityMethod.G107, Network(120_000, 12_000, 8_000))
    assert rating.budget == [
        delay.Part("network, half the round trip", 60_000),
        delay.Part("jitter buffer", 24_000),
        delay.Part("packetisation", 20_000),
        delay.Part("codec processing", 125),
    ]
    assert rating.one_way_us == 104_125
    # 95 x 0.8 / (0.8 + 4.3) = 14.902
    assert (rating.start_milli, rating.delay_milli, rating.codec_milli, rating.loss_milli) == (93_206, 0, 0, 14_902)
    assert (rating.r_milli, rating.mos_milli) == (78_304, 3_958)
    assert explain.best_mos_milli(rating) == 4_409


@given(codec=st.sampled_from(RATABLE), network=networks)
def test_parts_add_up_to_g107(codec, network):
    rating = explain.explain(codec, QualityMethod.G107, network)
    parts = rating.start_milli - rating.delay_milli - rating.codec_milli - rating.loss_milli
    assert rating.r_milli == max(0, parts)
    assert rating.mos_milli == emodel.mos_milli(parts)
    assert rating.codec_milli == codec.ie_milli
    assert rating.band is Band.NARROWBAND


@given(codec=st.sampled_from(RATABLE), network=networks, lost=st.integers(0, 1_000))
def test_it_rates_as_a_record_with_these_counters(codec, network, lost):
    network = network._replace(loss_ppm=1_000 * lost, burst_milli=1_000)
    rating = explain.explain(codec, QualityMethod.G107, network)
    rated = emodel.rate(
        codec.ie_milli,
        codec.bpl_milli,
        lost=lost,
        expected=1_000,
        loss_events=lost,
        one_way_us=rating.one_way_us,
    )
    assert (rating.r_milli, rating.mos_milli) == rated


@pytest.mark.parametrize("method", list(WIDE))
@given(network=networks)
def test_parts_add_up_on_wider_bands(method, network):
    rating = explain.explain(WIDE[method], method, network._replace(burst_milli=1_000))
    parts = rating.start_milli - rating.delay_milli - rating.codec_milli - rating.loss_milli
    assert rating.r_milli == max(0, parts)
    assert (rating.method, rating.band.name[0]) == (method, WIDE[method].band)


@given(network=networks, codec=st.sampled_from([PCMU, OPUS]))
def test_deployed_formulas_show_what_they_report(network, codec):
    seen = network.rtt_us, network.jitter_us, network.loss_ppm // 10_000 * 10_000
    older = explain.explain(codec, QualityMethod.RTPENGINE_10, network)
    assert older.mos_milli == rtpengine.mos_milli(*seen)
    assert older.r_milli == max(0, older.start_milli - older.delay_milli - older.loss_milli)
    newer = explain.explain(codec, QualityMethod.RTPENGINE_13, network)
    assert newer.mos_milli == rtpengine13.mos_milli(*seen, fullband=codec is OPUS)
    parts = newer.start_milli - newer.delay_milli - newer.codec_milli - newer.loss_milli
    assert newer.r_milli == max(0, parts)


def test_freeswitch_knows_flaws_alone():
    rating = explain.explain(G729A, QualityMethod.FREESWITCH, Network(1_000_000, 100_000, 20_000))
    assert (rating.r_milli, rating.mos_milli) == freeswitch.rate(98, 2)
    assert (rating.delay_milli, rating.codec_milli, rating.loss_milli, rating.budget) == (0, 0, 3_000, [])


def test_what_is_no_rating_says_so():
    lossy = Network(0, 0, 300_000)
    assert "no rating" in explain.explain(PCMU, QualityMethod.RTPENGINE_13, lossy).remarks[-1]
    lossier = Network(0, 0, 600_000)
    assert "no rating" in explain.explain(PCMU, QualityMethod.FREESWITCH, lossier).remarks[-1]


def test_a_buffer_of_ones_own_replaces_twice_the_jitter():
    budget = explain.budget_of(PCMU, Network(0, 12_000, 0, buffer_us=60_000))
    assert delay.Part("jitter buffer", 60_000) in budget


def test_each_band_has_its_model():
    assert [explain.method_of(codec) for codec in (PCMU, G722, OPUS, T38)] == [
        QualityMethod.G107,
        QualityMethod.G107_1,
        QualityMethod.G107_2,
        None,
    ]


def test_names_of_methods():
    assert [explain.method_name(method) for method in QualityMethod] == [
        "g107",
        "g107.1",
        "g107.2",
        "rtpengine-10",
        "rtpengine-13",
        "freeswitch",
        "rfc3611",
        "measured",
    ]


@pytest.mark.parametrize(
    ("codec", "method", "network", "where"),
    [
        (T38, QualityMethod.G107, Network(0, 0, 0), "codec"),
        (OPUS, QualityMethod.G107_2, Network(0, 0, 0), "codec"),
        (CODECS[23], QualityMethod.G107, Network(0, 0, 0), "codec"),
        (PCMU, QualityMethod.G107_1, Network(0, 0, 0), "method"),
        (OPUS, QualityMethod.G107, Network(0, 0, 0), "method"),
        (PCMU, QualityMethod.RFC3611, Network(0, 0, 0), "method"),
        (PCMU, QualityMethod.MEASURED, Network(0, 0, 0), "method"),
        (PCMU, QualityMethod.G107, Network(4_000_000, 0, 0), "rtt"),
        (WIDE[QualityMethod.G107_2], QualityMethod.G107_2, Network(0, 0, 1, 1_001), "burst_ratio"),
        (PCMU, QualityMethod.FREESWITCH, Network(0, 0, 1_000_000), "loss"),
    ],
)
def test_what_cannot_be_rated_is_said(codec, method, network, where):
    with pytest.raises(FieldError) as error:
        explain.explain(codec, method, network)
    assert error.value.where == where
