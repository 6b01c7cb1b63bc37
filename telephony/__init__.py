"""From what a SIP platform emits to a call record."""
