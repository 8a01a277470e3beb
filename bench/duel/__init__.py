"""The search for the host on which a peer is ahead of us by most."""
