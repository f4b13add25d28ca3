"""Hyper-parameters by trials on the validation rows: Optuna asks, jobs of any place answer."""
