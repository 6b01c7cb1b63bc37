"""Composition: configuration, driver, HTTP API, metrics, command lines, simulator."""
