"""WHAT is proposed next: Optuna samplers, made repeatable, and one that weighs expected gain against cost."""
