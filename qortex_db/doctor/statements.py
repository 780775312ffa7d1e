"""What the doctor asks: each statement reads catalogues alone, and changes nothing."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

SERVER: Final = text("""
SELECT pg_catalog.current_setting('server_version_num'::text)::int4,
       pg_catalog.current_setting('server_version'::text),
       pg_catalog.pg_is_in_recovery(),
       current_user::text,
       (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user),
       e.extversion, n.nspname::text, coalesce(pg_catalog.pg_type_is_visible(t.oid), false),
       (SELECT a.default_version FROM pg_catalog.pg_available_extensions a
        WHERE a.name = 'vector'::name),
       pg_catalog.clock_timestamp()
FROM (SELECT) one
LEFT JOIN pg_catalog.pg_extension e ON e.extname = 'vector'::name
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
LEFT JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector'::name
""")
SETTINGS: Final = text("""
SELECT s.name::text, s.setting::int8 * CASE s.unit
    WHEN 'kB'::text THEN 1024::int8 WHEN '8kB'::text THEN 8192::int8 WHEN 'MB'::text
    THEN 1048576::int8 ELSE 1::int8 END
FROM pg_catalog.pg_settings s WHERE s.name = ANY (CAST(:names AS text[]))
""")
NAMES: Final = (
    *("maintenance_work_mem", "shared_buffers", "effective_cache_size"),
    *("max_parallel_maintenance_workers", "max_parallel_workers", "max_worker_processes"),
    *("max_connections", "superuser_reserved_connections", "reserved_connections"),
)
CONNECTIONS: Final = text("""
SELECT (SELECT coalesce(pg_catalog.sum(s.numbackends), 0::int8)::int8
        FROM pg_catalog.pg_stat_database s),
       (SELECT nullif(r.rolconnlimit, -1::int4) FROM pg_catalog.pg_roles r
        WHERE r.rolname = current_user AND NOT r.rolsuper),
       (SELECT nullif(d.datconnlimit, -1::int4) FROM pg_catalog.pg_database d
        WHERE d.datname = pg_catalog.current_database())
""")
# By the catalogue alone: a name in a schema that is closed to the role is no error there.
TABLES: Final = text("""
SELECT w.label, c.oid::int8, c.relname::text, n.nspname::text,
       pg_catalog.pg_get_userbyid(c.relowner)::text,
       pg_catalog.pg_has_role(c.relowner, 'USAGE'::text),
       pg_catalog.has_schema_privilege(n.oid, 'USAGE'::text),
       ARRAY(SELECT p FROM pg_catalog.unnest(
                 ARRAY['SELECT'::text, 'INSERT'::text, 'UPDATE'::text, 'DELETE'::text]) p
             WHERE pg_catalog.has_table_privilege(c.oid, p)),
       pg_catalog.row_security_active(c.oid)
FROM ROWS FROM (
    pg_catalog.unnest(CAST(:labels AS text[])), pg_catalog.unnest(CAST(:schemas AS text[])),
    pg_catalog.unnest(CAST(:names AS text[]))) AS w (label, place, name)
JOIN pg_catalog.pg_class c ON c.relname::text = w.name AND c.relkind IN ('r'::"char", 'p'::"char")
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE CASE WHEN w.place IS NULL THEN pg_catalog.pg_table_is_visible(c.oid)
      ELSE n.nspname::text = w.place END
""")
PID: Final = text("SELECT pg_catalog.pg_backend_pid()")
