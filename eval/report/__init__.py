"""Numbers -> one HTML file."""
