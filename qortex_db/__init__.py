"""qortex-db."""
