"""WHAT one trial does: train, prune, recover, and save. The only folder that imports torch."""
