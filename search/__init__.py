"""WHO decides and where it runs: the proposals (Optuna), the cluster (Ray Tune), the commands. Wires the rest."""
