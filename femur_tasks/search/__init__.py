"""Hyperband as a durable search whose trials are leased to workers."""
