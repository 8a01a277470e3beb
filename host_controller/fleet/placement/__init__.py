"""OpenStack's Placement: how far a host's memory may be promised (`ratio`), and saying so (`publisher`)."""
