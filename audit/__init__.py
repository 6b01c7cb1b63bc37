"""Proof for those who trust no node: the verifier."""
