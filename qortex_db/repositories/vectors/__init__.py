"""The vectors of a table: written and read by key, by filter and by page; compared in `search/`."""
