"""What a certificate proves: its target is justified and, one height above its source, the source is final.

Source: docs/consensus.md, "Votes and certificates".
"""

from __future__ import annotations

from typing import NamedTuple

from consensus.votes import Checkpoint, Link


class BranchFinality(NamedTuple):
    """What the certificates carried in one branch prove.

    Attributes:
        justified: target of the highest certificate carried; votes for the branch's tip have it as their source.
        final: the highest block they make final.
    """

    justified: Checkpoint
    final: Checkpoint

    def after(self, link: Link) -> BranchFinality:
        """Return what is proved once a certificate on ``link``, whose source is ``justified``, is carried as well."""
        final = link.source if makes_final(link) else self.final
        return BranchFinality(link.target, final)


def makes_final(link: Link) -> bool:
    """Tell whether a certificate on ``link`` makes its source final: the target is its direct child in height."""
    return link.target.height == link.source.height + 1
