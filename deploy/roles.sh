#!/bin/sh
# Run once by a superuser, on an empty database: the extension, who migrates, and who is asked.
# What tables they have is granted after each upgrade, by `qortex-db roles`.
set -eu
psql --set ON_ERROR_STOP=1 --set owner="$OWNER_PASSWORD" --set app="$APP_PASSWORD" \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'END'
CREATE EXTENSION vector;
CREATE ROLE memory_owner LOGIN PASSWORD :'owner';
CREATE ROLE memory_app LOGIN PASSWORD :'app';
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CREATE, USAGE ON SCHEMA public TO memory_owner;
GRANT USAGE ON SCHEMA public TO memory_app;
END
