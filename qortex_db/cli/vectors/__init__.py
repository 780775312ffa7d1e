"""The commands about vectors, and what is built over them."""
