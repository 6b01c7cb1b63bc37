"""The E-models in floating point, from the recommendations: oracles that share nothing with the integer ones."""

from math import exp, log2, log10, sqrt


def idd(ta_ms):
    """Delay impairment, sT = 1, mT = 100 ms."""
    if ta_ms <= 100:
        return 0.0
    x = log2(ta_ms / 100)
    return 25 * ((1 + x**6) ** (1 / 6) - 3 * (1 + (x / 3) ** 6) ** (1 / 6) + 2)


def narrowband_r(ie, bpl, loss_percent, burst, ta_ms):
    """G.107 (06/2015) in full, every parameter but these five at its default, perfect echo control."""
    slr, rlr, stmr, ds, dr, telr, wepl, qdu = 8, 2, 15, 3, 3, 65, 110, 1
    nc, nfor, ps, pr = -70, -64, 35, 35
    olr = slr + rlr
    nos = ps - slr - ds - 100 + 0.004 * (ps - olr - ds - 14) ** 2
    pre = pr + 10 * log10(1 + 10 ** ((10 - (stmr + dr)) / 10))
    nor = rlr - 121 + pre + 0.008 * (pre - 35) ** 2
    no = 10 * log10(sum(10 ** (n / 10) for n in (nc, nos, nor, nfor + rlr)))
    ro = 15 - 1.5 * (slr + no)
    xolr = olr + 0.2 * (64 + no - rlr)
    iolr = 20 * ((1 + (xolr / 8) ** 8) ** (1 / 8) - xolr / 8)
    stmro = -10 * log10(10 ** (-stmr / 10) + exp(0) * 10 ** (-telr / 10))
    ist = (
        12 * (1 + ((stmro - 13) / 6) ** 8) ** (1 / 8)
        - 28 * (1 + ((stmro + 1) / 19.4) ** 35) ** (1 / 35)
        - 13 * (1 + ((stmro - 3) / 33) ** 13) ** (1 / 13)
        + 29
    )
    q = 37 - 15 * log10(qdu)
    g = 1.07 + 0.258 * q + 0.0602 * q**2
    iq = 15 * log10(1 + 10 ** ((ro - 100) / 15 + 46 / 8.4 - g / 9) + 10 ** (46 / 30 - g / 40))
    rle = 10.5 * (wepl + 7)
    idle = (ro - rle) / 2 + sqrt((ro - rle) ** 2 / 4 + 169)
    ie_eff = ie + (95 - ie) * loss_percent / (loss_percent / burst + bpl)
    return ro - (iolr + ist + iq) - idle - idd(ta_ms) - ie_eff


def wideband_r(ie, bpl, loss_percent, ta_ms):
    """G.107.1, everything but codec, random loss and delay at its default."""
    return 129 - idd(ta_ms) - (ie + (95 - ie) * loss_percent / (loss_percent + bpl))


def fullband_r(ie, bpl, loss_percent, ta_ms):
    """G.107.2, everything but codec, random loss and delay at its default."""
    return 148 - 1.48 * idd(ta_ms) - (ie + (132 - ie) * loss_percent / (loss_percent + bpl))


def cubic(r):
    """G.107 Annex B, equation B-4, as it stands."""
    return 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6


def mos(r):
    """MOS on a scale of 1 to 4.5."""
    return 1.0 if r <= 0 else min(4.5, max(1.0, cubic(min(r, 100.0))))
