"""Networks that make images, of a poorer image or of what was measured; one family a file."""
