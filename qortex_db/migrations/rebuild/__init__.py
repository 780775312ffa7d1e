"""Vector indexes taken away for a load and put back, or built anew."""
