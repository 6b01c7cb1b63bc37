"""How nodes find out what others know."""
