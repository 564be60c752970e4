"""Gymnasium environments over the servers of other systems, each in the protocol of that system."""
