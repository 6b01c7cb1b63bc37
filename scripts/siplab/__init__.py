"""The SIP lab: a real proxy, a real media relay and two user agents on loopback, and the CDRs that come of it."""
