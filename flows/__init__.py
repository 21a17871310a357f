"""Sentences: one file, one flow, one deployment."""
