"""Tables kept in files, whole and checked, and put back."""
