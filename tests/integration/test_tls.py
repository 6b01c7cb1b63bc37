"""Nodes that peer over TLS with certificates of their own making, bound to their node keys."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from node.cluster import make_cluster
from node.founding import DEFAULT_PARAMETERS
from node.localnet import LocalNode, stop_all
from tests.integration.cluster_kit import MEMBERS, Feeder, is_final, wait_until, wall_ms


def write_certificate(home: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ledgerd")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    paths = home / "tls.pem", home / "tls.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def test_a_cluster_over_tls_makes_records_final(tmp_path: Path) -> None:
    cluster = make_cluster(
        tmp_path / "net",
        MEMBERS,
        genesis_time_ms=wall_ms(),
        parameters=msgspec.structs.replace(DEFAULT_PARAMETERS, slot_ms=500),
    )
    nodes = []
    for place in cluster.nodes:
        certificate, key = write_certificate(place.home)
        peers = ",".join(f"wss://{other.listen}" for other in cluster.nodes if other is not place)
        endpoint = f"wss://{place.listen}"
        arguments = ["--tls-certificate", str(certificate), "--tls-key", str(key), "--peers", peers]
        nodes.append(LocalNode(place, [*arguments, "--endpoint", endpoint]))
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait_ready()
        tx_id = Feeder(cluster).send(nodes[0])
        assert tx_id is not None
        for node in nodes:
            wait_until(f"final at {node.name}", lambda node=node: is_final(node, tx_id), 30)
    finally:
        stop_all(nodes)
