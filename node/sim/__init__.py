"""A whole cluster on a virtual clock, network and disk."""
