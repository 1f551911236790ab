"""How fast the pruning engine is, against torch-pruning, masking, networks built from scratch and a plain loop."""
