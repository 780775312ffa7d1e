"""The commands that bring rows from elsewhere, keep them in files, and put them back."""
