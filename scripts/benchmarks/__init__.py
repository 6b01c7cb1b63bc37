"""What the project does in a second on this machine, beside what the machine can do. See docs/benchmarks.md."""
