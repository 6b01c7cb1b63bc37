"""Who may produce, which chain to follow, and when a block is final. Pure."""
