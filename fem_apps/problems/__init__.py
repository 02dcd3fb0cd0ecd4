"""Forward problems; they never know who calls them."""
