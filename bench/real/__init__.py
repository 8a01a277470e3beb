"""The loop on real guests, the real daemon under load, and the agent's size: `make bench`."""
