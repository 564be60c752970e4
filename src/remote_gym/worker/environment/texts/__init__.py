"""Environments for language-model agents: asynchronous, of texts and images, without spaces."""
