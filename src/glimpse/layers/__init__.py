"""What several networks are built from."""
