"""Integer models of voice quality and energy, with their pinned tables."""
