"""What only a GPU shows; see __main__.py."""
