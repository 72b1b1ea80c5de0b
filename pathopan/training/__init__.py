"""Samples in, bundle out."""
