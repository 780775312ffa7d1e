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
       coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'::text), false),
       EXISTS (SELECT FROM pg_catalog.pg_extension x WHERE x.extname = 'citus'::name),
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
# Limits are those of who logged in, and none of a superuser's. What others' connections are for is
# not shown to everybody.
CONNECTIONS: Final = text("""
SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE a.usesysid = me.oid), me.role_limit,
       pg_catalog.count(*) FILTER (WHERE a.datid = me.datid), me.database_limit
FROM pg_catalog.pg_stat_activity a, (
    SELECT r.oid, d.oid,
           CASE WHEN NOT r.rolsuper THEN nullif(r.rolconnlimit, -1::int4) END,
           CASE WHEN NOT r.rolsuper THEN nullif(d.datconnlimit, -1::int4) END
    FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
    WHERE r.rolname = session_user AND d.datname = pg_catalog.current_database()
) me (oid, datid, role_limit, database_limit)
WHERE a.usesysid IS NOT NULL AND coalesce(a.backend_type, 'client backend'::text)
      = 'client backend'::text
GROUP BY me.role_limit, me.database_limit
""")
# By the catalogue alone: a name in a schema that is closed to the role is no error there.
TABLES: Final = text("""
SELECT w.label, c.oid::int8, current_user::text, c.relname::text, n.nspname::text,
       pg_catalog.pg_get_userbyid(c.relowner)::text,
       pg_catalog.pg_has_role(c.relowner, 'USAGE'::text),
       pg_catalog.has_schema_privilege(n.oid, 'USAGE'::text),
       pg_catalog.row_security_active(c.oid),
       ARRAY(SELECT p FROM pg_catalog.unnest(
                 ARRAY['SELECT'::text, 'INSERT'::text, 'UPDATE'::text, 'DELETE'::text]) p
             WHERE pg_catalog.has_table_privilege(c.oid, p))
FROM ROWS FROM (
    pg_catalog.unnest(CAST(:labels AS text[])), pg_catalog.unnest(CAST(:schemas AS text[])),
    pg_catalog.unnest(CAST(:names AS text[]))) AS w (label, place, name)
JOIN pg_catalog.pg_class c ON c.relname::text = w.name AND c.relkind IN ('r'::"char", 'p'::"char")
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE CASE WHEN w.place IS NULL
      THEN pg_catalog.pg_table_is_visible(c.oid) OR n.nspname::text = ANY (CAST(:closed AS text[]))
      ELSE n.nspname::text = w.place END
ORDER BY pg_catalog.pg_table_is_visible(c.oid)
""")
PID: Final = text("SELECT pg_catalog.pg_backend_pid()")
POSITION: Final = text("""
SELECT pg_catalog.pg_postmaster_start_time(),
       (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
             ELSE pg_catalog.pg_current_wal_flush_lsn() END)::text
""")
# The age of the last transaction is by this server's clock, which `clock` compares.
STANDBY: Final = text("""
SELECT r.it, pg_catalog.pg_postmaster_start_time(),
       CASE WHEN r.it THEN pg_catalog.pg_get_wal_replay_pause_state() <> 'not paused'::text
            ELSE false END,
       CASE WHEN r.it THEN pg_catalog.pg_wal_lsn_diff(
                CAST(:place AS text)::pg_lsn, pg_catalog.pg_last_wal_replay_lsn())::int8
            ELSE 0::int8 END,
       extract(epoch FROM pg_catalog.clock_timestamp()
           - pg_catalog.pg_last_xact_replay_timestamp())::float8,
       (SELECT c.confl_tablespace + c.confl_lock + c.confl_snapshot + c.confl_bufferpin
               + c.confl_deadlock
        FROM pg_catalog.pg_stat_database_conflicts c
        WHERE c.datname = pg_catalog.current_database()),
       pg_catalog.current_setting('hot_standby_feedback'::text)::bool,
       (SELECT nullif(s.setting::float8, -1::float8) / 1000::float8 FROM pg_catalog.pg_settings s
        WHERE s.name = 'max_standby_streaming_delay'::text)
FROM (SELECT pg_catalog.pg_is_in_recovery()) r (it)
""")
