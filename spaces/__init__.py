"""WHAT may vary: study files, the plans they allow, and the catalogue of plug-ins. Pure Python; no torch."""
