"""What goes over the wires is counted by direction and kind; and which addresses leave this machine."""

from __future__ import annotations

import pytest

from p2p.addresses import leaves_machine
from p2p.messages import TYPE_BYTES, Peers, Transactions
from p2p.traffic import Traffic


def test_messages_and_bytes_are_counted_apart() -> None:
    traffic = Traffic()
    traffic.received(Peers([]), 10)
    traffic.received(Peers([]), 20)
    traffic.sent(Transactions([]), 300)
    found = {(way, kind): (flow.messages, flow.octets) for way, kind, flow in traffic.flows() if flow.messages}
    assert found == {("in", "Peers"): (2, 30), ("out", "Transactions"): (1, 300)}
    assert len(list(traffic.flows())) == 2 * len(TYPE_BYTES)


@pytest.mark.parametrize(
    ("address", "leaves"),
    [
        ("ws://127.0.0.1:9090", False),
        ("wss://[::1]:9090", False),
        ("ws://localhost:9090", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("ws://10.0.0.7:9090", True),
        ("wss://ledger.beta.example:443", True),
        ("10.0.0.7", True),
        ("?", True),
    ],
)
def test_which_addresses_leave_this_machine(address: str, leaves: bool) -> None:
    assert leaves_machine(address) is leaves
