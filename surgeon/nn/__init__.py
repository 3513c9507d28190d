"""The modules that operations put into networks."""
