"""Verbs: Prefect's decorators around one call each, and nothing else."""
