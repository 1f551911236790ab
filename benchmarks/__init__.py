"""Opponents and prunefront side by side: `python -m benchmarks.NAME [--quick] [--json FILE]`, one row per figure."""
