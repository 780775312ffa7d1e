"""What a server says of its tables, and what it has to say after the migrations."""

from __future__ import annotations

import re

import asyncpg

VERSION_TABLE = "qortex_db_alembic_version"

CATALOGUE = """
SELECT c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
       || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
       || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
       || CASE WHEN a.attgenerated <> '' OR a.attidentity <> '' THEN ' generated' ELSE '' END
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p')
  AND c.relnamespace = $1::regnamespace AND c.relname <> 'qortex_db_alembic_version'
UNION ALL
SELECT pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisvalid THEN '' ELSE ' INVALID' END
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = $1::regnamespace AND c.relname <> 'qortex_db_alembic_version'
UNION ALL
SELECT c.relname || ' ' || o.conname || ' ' || pg_get_constraintdef(o.oid)
FROM pg_constraint o JOIN pg_class c ON c.oid = o.conrelid
WHERE c.relnamespace = $1::regnamespace AND c.relname <> 'qortex_db_alembic_version'
  AND o.contype <> 'n' -- PostgreSQL 18 lists NOT NULL here too
"""
COMMENTS = """
SELECT c.relname || '.' || a.attname || ' ' || col_description(c.oid, a.attnum)
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE a.attnum > 0 AND c.relkind = 'r' AND c.relnamespace = $1::regnamespace
  AND col_description(c.oid, a.attnum) IS NOT NULL
"""
BASELINE = {
    "qortex_vectors.id text not null",
    "qortex_vectors.vec vector(384)",
    "interoception_factors.node_id text not null",
    "interoception_factors.weight double precision not null default 1.0",
    "interoception_factors.updated_at timestamp with time zone default now()",
    "interoception_edge_buffer.src_id text not null",
    "interoception_edge_buffer.tgt_id text not null",
    "interoception_edge_buffer.hit_count integer not null default 0",
    "interoception_edge_buffer.scores jsonb not null default '[]'::jsonb",
    "interoception_edge_buffer.last_seen timestamp with time zone default now()",
    "learning_arm_states.learner_name text not null",
    "learning_arm_states.context_hash text not null",
    "learning_arm_states.arm_id text not null",
    "learning_arm_states.alpha double precision not null default 1.0",
    "learning_arm_states.beta double precision not null default 1.0",
    "learning_arm_states.pulls integer not null default 0",
    "learning_arm_states.total_reward double precision not null default 0.0",
    "learning_arm_states.last_updated timestamp with time zone default now()",
    "qortex_vectors pk_qortex_vectors PRIMARY KEY (id)",
    "interoception_factors pk_interoception_factors PRIMARY KEY (node_id)",
    "interoception_edge_buffer pk_interoception_edge_buffer PRIMARY KEY (src_id, tgt_id)",
    "learning_arm_states pk_learning_arm_states PRIMARY KEY (learner_name, context_hash, arm_id)",
    "CREATE UNIQUE INDEX pk_qortex_vectors ON public.qortex_vectors USING btree (id)",
    (
        "CREATE UNIQUE INDEX pk_interoception_factors ON public.interoception_factors "
        "USING btree (node_id)"
    ),
    (
        "CREATE UNIQUE INDEX pk_interoception_edge_buffer ON public.interoception_edge_buffer "
        "USING btree (src_id, tgt_id)"
    ),
    (
        "CREATE UNIQUE INDEX pk_learning_arm_states ON public.learning_arm_states "
        "USING btree (learner_name, context_hash, arm_id)"
    ),
    (
        "CREATE INDEX ix_qortex_vectors_vec ON public.qortex_vectors "
        "USING hnsw (vec vector_cosine_ops)"
    ),
    (
        "CREATE INDEX idx_learning_arm_states_context ON public.learning_arm_states "
        "USING btree (learner_name, context_hash)"
    ),
}
LATER = {  # what the revisions after the baseline add
    "qortex_vectors.payload jsonb not null default '{}'::jsonb",
    "qortex_vectors.document text",
    "qortex_vectors.document_words tsvector",
    "qortex_vectors.created_at timestamp with time zone default now()",
    "qortex_vectors.updated_at timestamp with time zone default now()",
    (
        "CREATE INDEX ix_qortex_vectors_payload ON public.qortex_vectors "
        "USING gin (payload jsonb_path_ops)"
    ),
    (
        "CREATE INDEX ix_qortex_vectors_words ON public.qortex_vectors "
        "USING gin (to_tsvector('english'::regconfig, "
        "translate(\"left\"(document, 100000), '/.-@<&+~'::text, '        '::text)))"
    ),
    "qortex_embedding_cache.text_hash bytea not null",
    "qortex_embedding_cache.model text not null",
    "qortex_embedding_cache.revision text not null",
    "qortex_embedding_cache.dimensions integer not null",
    "qortex_embedding_cache.vec vector not null",
    "qortex_embedding_cache.last_used timestamp with time zone not null default now()",
    (
        "qortex_embedding_cache pk_qortex_embedding_cache "
        "PRIMARY KEY (text_hash, model, revision, dimensions)"
    ),
    (
        "CREATE UNIQUE INDEX pk_qortex_embedding_cache ON public.qortex_embedding_cache "
        "USING btree (text_hash, model, revision, dimensions)"
    ),
    (
        "learning_arm_states ck_learning_arm_states_alpha_positive CHECK "
        "(((alpha > (0)::double precision) AND (alpha < 'Infinity'::double precision)))"
    ),
    (
        "learning_arm_states ck_learning_arm_states_beta_positive CHECK "
        "(((beta > (0)::double precision) AND (beta < 'Infinity'::double precision)))"
    ),
    "learning_arm_states ck_learning_arm_states_pulls_counted CHECK ((pulls >= 0))",
    "learning_events.learner_name text not null",
    "learning_events.context_hash text not null",
    "learning_events.arm_id text not null",
    "learning_events.id bigint not null generated",
    "learning_events.kind text not null",
    "learning_events.alpha_added double precision",
    "learning_events.beta_added double precision",
    "learning_events.pulls_added integer",
    "learning_events.multiplied_by double precision",
    "learning_events.probability double precision",
    "learning_events.alpha double precision",
    "learning_events.beta double precision",
    "learning_events.pulls integer",
    "learning_events.total_reward double precision",
    "learning_events.last_updated timestamp with time zone",
    "learning_events.recorded_at timestamp with time zone not null default now()",
    ("learning_events pk_learning_events PRIMARY KEY (learner_name, context_hash, arm_id, id)"),
    (
        "CREATE UNIQUE INDEX pk_learning_events ON public.learning_events "
        "USING btree (learner_name, context_hash, arm_id, id)"
    ),
    "learning_contexts.context_hash text not null",
    "learning_contexts.context jsonb not null",
    "learning_contexts.recorded_at timestamp with time zone not null default now()",
    "learning_contexts pk_learning_contexts PRIMARY KEY (context_hash)",
    "qortex_db_idempotency_keys.key text not null",
    "qortex_db_idempotency_keys.digest bytea not null",
    "qortex_db_idempotency_keys.made_at timestamp with time zone not null default now()",
    "qortex_db_idempotency_keys pk_qortex_db_idempotency_keys PRIMARY KEY (key)",
    (
        "CREATE UNIQUE INDEX pk_qortex_db_idempotency_keys ON public.qortex_db_idempotency_keys "
        "USING btree (key)"
    ),
    (
        "CREATE INDEX ix_qortex_db_idempotency_keys_made_at ON public.qortex_db_idempotency_keys "
        "USING btree (made_at)"
    ),
    "qortex_db_word_frequencies.table_name text not null",
    "qortex_db_word_frequencies.word text not null",
    "qortex_db_word_frequencies.documents bigint not null",
    "qortex_db_word_frequencies.mean_length double precision",
    "qortex_db_word_frequencies.counted_at timestamp with time zone",
    "qortex_db_word_frequencies pk_qortex_db_word_frequencies PRIMARY KEY (table_name, word)",
    (
        "CREATE UNIQUE INDEX pk_qortex_db_word_frequencies ON public.qortex_db_word_frequencies "
        "USING btree (table_name, word)"
    ),
    "qortex_db_changeovers.table_name text not null",
    "qortex_db_changeovers.column_name text not null",
    "qortex_db_changeovers.old_name text not null",
    "qortex_db_changeovers.new_name text not null",
    "qortex_db_changeovers.metric text not null",
    "qortex_db_changeovers.storage text not null",
    "qortex_db_changeovers.quantization text",
    "qortex_db_changeovers.is_switched boolean not null default false",
    "qortex_db_changeovers.is_closing boolean not null default false",
    "qortex_db_changeovers.model text",
    "qortex_db_changeovers.began_at timestamp with time zone not null default now()",
    "qortex_db_changeovers.switched_at timestamp with time zone",
    "qortex_db_changeovers.ended_at timestamp with time zone",
    "qortex_db_changeovers pk_qortex_db_changeovers PRIMARY KEY (table_name)",
    (
        "CREATE UNIQUE INDEX pk_qortex_db_changeovers ON public.qortex_db_changeovers "
        "USING btree (table_name)"
    ),
    "qortex_db_checkpoints.work text not null",
    "qortex_db_checkpoints.position jsonb",
    "qortex_db_checkpoints.rows_read bigint not null default 0",
    "qortex_db_checkpoints.rows_written bigint not null default 0",
    "qortex_db_checkpoints.rows_rejected bigint not null default 0",
    "qortex_db_checkpoints.began_at timestamp with time zone not null default now()",
    "qortex_db_checkpoints.updated_at timestamp with time zone not null default now()",
    "qortex_db_checkpoints.finished_at timestamp with time zone",
    "qortex_db_checkpoints pk_qortex_db_checkpoints PRIMARY KEY (work)",
    (
        "CREATE UNIQUE INDEX pk_qortex_db_checkpoints ON public.qortex_db_checkpoints "
        "USING btree (work)"
    ),
    "qortex_db_indexed_documents.namespace text not null",
    "qortex_db_indexed_documents.key text not null",
    "qortex_db_indexed_documents.group_id text",
    "qortex_db_indexed_documents.updated_at timestamp with time zone not null",
    "qortex_db_indexed_documents pk_qortex_db_indexed_documents PRIMARY KEY (namespace, key)",
    (
        "CREATE UNIQUE INDEX pk_qortex_db_indexed_documents "
        "ON public.qortex_db_indexed_documents USING btree (namespace, key)"
    ),
    (
        "CREATE INDEX ix_qortex_db_indexed_documents_namespace_group_id "
        "ON public.qortex_db_indexed_documents USING btree (namespace, group_id)"
    ),
    (
        "CREATE INDEX ix_qortex_db_indexed_documents_namespace_updated_at "
        "ON public.qortex_db_indexed_documents USING btree (namespace, updated_at)"
    ),
    (
        "CREATE UNIQUE INDEX pk_learning_contexts ON public.learning_contexts "
        "USING btree (context_hash)"
    ),
}


async def rows(dsn: str, query: str, *arguments: object) -> list[str]:
    connection = await asyncpg.connect(dsn)
    try:
        return [row[0] for row in await connection.fetch(query, *arguments)]
    finally:
        await connection.close()


async def execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def run_script(dsn: str, sql: str) -> None:
    """As psql does: each statement by itself, since an index built concurrently wants that."""
    await execute(dsn, *filter(str.strip, re.split(r";\s*\n", sql)))


async def catalogue(dsn: str, schema: str = "public") -> set[str]:
    """Columns, indexes and constraints, in the server's own words."""
    return set(await rows(dsn, CATALOGUE, schema))


async def comments(dsn: str, schema: str = "public") -> set[str]:
    return set(await rows(dsn, COMMENTS, schema))


async def relations(dsn: str) -> set[str]:
    """Whatever is there beyond a fresh database and its extension."""
    query = """
        SELECT c.oid::regclass::text FROM pg_class c
        WHERE c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace,
                                     'pg_toast'::regnamespace)
        UNION ALL SELECT 'schema ' || nspname FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname NOT IN ('public', 'information_schema')
    """
    return set(await rows(dsn, query))
