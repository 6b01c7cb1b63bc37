"""The second implementation: all test vectors, and the verdict and place of the audit on good and forged chains."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ledger.genesis import Genesis
from ledger.rules.ruleset import RuleSet
from tests.audit.agreement import audited, referred, signatures_remembered
from tests.audit.chains import FIVE, NEXT_KEY, NODE_KEYS, Cluster, govern, make_genesis, rules_of
from tests.audit.forgery import Forgery, all_variants, replay
from tests.audit.tamper import Parts, take_apart
from tests.audit.test_verify import CONTENTS, END

VARIANTS = {name: variant for name, variant in all_variants().items() if variant.field}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with signatures_remembered():
        yield


@pytest.fixture(scope="module")
def rules(genesis: Genesis) -> RuleSet:
    return rules_of(genesis)


@pytest.fixture(scope="module")
def governed() -> Forgery:
    genesis = make_genesis(name="governed", members=FIVE, seats=4)
    cluster = Cluster(genesis)
    govern(cluster)
    parts = take_apart(cluster.peers[0].store, genesis)
    return Forgery(parts, replay(parts, rules_of(genesis)), {k.key_id: k for k in (*NODE_KEYS.values(), NEXT_KEY)})


def test_a_good_chain(original: Parts, rules: RuleSet) -> None:
    data = original.to_export()
    assert referred(data, original.genesis) == audited(data, original.genesis, rules)
    assert referred(data, original.genesis)[0] == ("ok", 14, "")


def test_a_governed_chain(governed: Forgery) -> None:
    parts = governed.parts
    data = parts.to_export()
    assert referred(data, parts.genesis) == audited(data, parts.genesis, rules_of(parts.genesis))


@pytest.mark.parametrize("name", [*CONTENTS, *END])
def test_a_changed_chain(name: str, parts: Parts, rules: RuleSet) -> None:
    (CONTENTS | END)[name][0](parts)
    data = parts.to_export()
    place, sentence = referred(data, parts.genesis)
    assert (place, sentence[:6]) == (audited(data, parts.genesis, rules)[0], "NOT OK")


@pytest.mark.parametrize("name", VARIANTS)
def test_a_forged_chain(name: str, governed: Forgery) -> None:
    forged = governed.copy()
    VARIANTS[name].forge(forged)
    data = forged.parts.to_export()
    assert (
        referred(data, forged.parts.genesis)[0]
        == audited(data, forged.parts.genesis, rules_of(forged.parts.genesis))[0]
    )
