"""The OAuth endpoints, a file each."""
