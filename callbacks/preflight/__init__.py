"""What one wants to know before the first hour is spent."""
