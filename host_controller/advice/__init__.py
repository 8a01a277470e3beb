"""What a VM's recorded weeks say about its sizes, and the host's about its future. Pure, but for reading
files.
"""
