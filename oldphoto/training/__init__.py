"""Synthetic ageing, datasets, losses and one trainer a network."""
