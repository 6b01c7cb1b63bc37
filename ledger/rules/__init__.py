"""Rule modules: pure functions of records that decide what a chain accepts."""
