"""What others hold, brought here; and what is here, kept in files."""
