"""What a cell's hosts say and what its engine knows, in; what is published, moved or refused, out. Pure."""
