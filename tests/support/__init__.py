"""What several tests share: builders, a controller in virtual time, its API served, waiting with a limit."""
