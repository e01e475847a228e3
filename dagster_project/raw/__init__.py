"""Raw tables of the demonstration, and how to load them."""
