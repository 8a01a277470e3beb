"""What runs in a guest that is watched: the standard library alone, each file a program."""
