"""What each VM should have, worked out from facts alone: demand, then balance, then plan."""
