"""The statements for PostgreSQL that run every day. Written by `make docs`: change building.py and postgresql_building.py instead."""

from __future__ import annotations

from typing import Final

from cacheness.metadata.sql.statements import Statement

STATEMENTS: Final = {
    'identity': Statement(
        'SELECT cacheness.store.id, cacheness.store.epoch, cacheness.store.min_reader, (SELECT '
        'cacheness.schema_version.version_num FROM cacheness.schema_version) AS anon_1 FROM cacheness.store',
        {},
        ()
    ),
    'create_store': Statement(
        'INSERT INTO cacheness.store (id, epoch, min_reader) VALUES ($1::VARCHAR, $2::VARCHAR, $3::INTEGER)',
        {},
        ('id', 'epoch', 'min_reader')
    ),
    'create_version': Statement(
        'INSERT INTO cacheness.schema_version (version_num) VALUES ($1::VARCHAR)',
        {},
        ('version_num',)
    ),
    'begin_epoch': Statement(
        'UPDATE cacheness.store SET epoch=substr($1::VARCHAR || $2::VARCHAR || cacheness.store.epoch, '
        '$3::INTEGER, $4::INTEGER)',
        {'param_1': ',', 'substr_1': 1, 'substr_2': 500},
        ('new_epoch', 'param_1', 'substr_1', 'substr_2')
    ),
    'usage': Statement(
        'SELECT cacheness.store.epoch, EXISTS (SELECT cacheness.sessions.id FROM cacheness.sessions) AS '
        'anon_1, EXISTS (SELECT * FROM cacheness.entries WHERE cacheness.entries.blob IS NOT NULL) AS anon_2 '
        'FROM cacheness.store',
        {},
        ()
    ),
    'sync': Statement(
        'UPDATE cacheness.store SET epoch=cacheness.store.epoch',
        {},
        ()
    ),
    'find': Statement(
        'SELECT cacheness.entries.namespace, cacheness.entries.key, cacheness.entries.blob, '
        'cacheness.entries.inline, cacheness.entries.size, cacheness.entries.raw_size, '
        'cacheness.entries.digest, cacheness.entries.codec, cacheness.entries.created_at, '
        'cacheness.entries.expires_at, cacheness.entries.compute_seconds, cacheness.entries.function, '
        'cacheness.entries.prefix, cacheness.entries.args, cacheness.entries.components, '
        'cacheness.entries.value, cacheness.entries.fn, cacheness.entries.alias, cacheness.entries.link, '
        'cacheness.entries.outputs, cacheness.entries.tags, cacheness.entries.provenance, '
        'cacheness.entries.key_id, cacheness.entries.mac FROM cacheness.entries WHERE '
        'cacheness.entries.namespace = $1::VARCHAR AND cacheness.entries.key = $2 AND NOT (EXISTS (SELECT * '
        'FROM cacheness.disputes WHERE cacheness.disputes.namespace = cacheness.entries.namespace AND '
        'cacheness.disputes.key = cacheness.entries.key AND cacheness.disputes.at >= '
        'cacheness.entries.created_at))',
        {},
        ('namespace', 'key')
    ),
    'find_many': Statement(
        'SELECT cacheness.entries.namespace, cacheness.entries.key, cacheness.entries.blob, '
        'cacheness.entries.inline, cacheness.entries.size, cacheness.entries.raw_size, '
        'cacheness.entries.digest, cacheness.entries.codec, cacheness.entries.created_at, '
        'cacheness.entries.expires_at, cacheness.entries.compute_seconds, cacheness.entries.function, '
        'cacheness.entries.prefix, cacheness.entries.args, cacheness.entries.components, '
        'cacheness.entries.value, cacheness.entries.fn, cacheness.entries.alias, cacheness.entries.link, '
        'cacheness.entries.outputs, cacheness.entries.tags, cacheness.entries.provenance, '
        'cacheness.entries.key_id, cacheness.entries.mac FROM cacheness.entries WHERE '
        'cacheness.entries.namespace = $1::VARCHAR AND cacheness.entries.key = ANY ($2::BYTEA[]) AND NOT '
        '(EXISTS (SELECT * FROM cacheness.disputes WHERE cacheness.disputes.namespace = '
        'cacheness.entries.namespace AND cacheness.disputes.key = cacheness.entries.key AND '
        'cacheness.disputes.at >= cacheness.entries.created_at))',
        {},
        ('namespace', 'keys')
    ),
    'present': Statement(
        'SELECT cacheness.entries.key, coalesce(target.size, cacheness.entries.size) AS coalesce_1, '
        'coalesce(target.raw_size, cacheness.entries.raw_size) AS coalesce_2, '
        'coalesce(target.compute_seconds, cacheness.entries.compute_seconds) AS coalesce_3, '
        'coalesce(target.outputs, cacheness.entries.outputs) AS coalesce_4, coalesce(target.created_at, '
        'cacheness.entries.created_at) AS coalesce_5, cacheness.entries.link FROM cacheness.entries LEFT '
        'OUTER JOIN cacheness.entries AS target ON target.namespace = cacheness.entries.namespace AND '
        'target.key = cacheness.entries.link WHERE cacheness.entries.namespace = $1::VARCHAR AND '
        'cacheness.entries.key = ANY ($2::BYTEA[]) AND (cacheness.entries.expires_at IS NULL OR '
        'cacheness.entries.expires_at > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AND NOT '
        '(EXISTS (SELECT * FROM cacheness.disputes WHERE cacheness.disputes.namespace = '
        'cacheness.entries.namespace AND cacheness.disputes.key = cacheness.entries.key AND '
        'cacheness.disputes.at >= cacheness.entries.created_at)) AND (cacheness.entries.link IS NULL OR '
        'target.alias = cacheness.entries.alias AND target.link IS NULL AND (target.expires_at IS NULL OR '
        'target.expires_at > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) AND NOT (EXISTS '
        '(SELECT * FROM cacheness.disputes WHERE cacheness.disputes.namespace = target.namespace AND '
        'cacheness.disputes.key = target.key AND cacheness.disputes.at >= target.created_at)))',
        {},
        ('namespace', 'keys')
    ),
    'by_alias': Statement(
        'SELECT cacheness.entries.namespace, cacheness.entries.key, cacheness.entries.blob, '
        'cacheness.entries.inline, cacheness.entries.size, cacheness.entries.raw_size, '
        'cacheness.entries.digest, cacheness.entries.codec, cacheness.entries.created_at, '
        'cacheness.entries.expires_at, cacheness.entries.compute_seconds, cacheness.entries.function, '
        'cacheness.entries.prefix, cacheness.entries.args, cacheness.entries.components, '
        'cacheness.entries.value, cacheness.entries.fn, cacheness.entries.alias, cacheness.entries.link, '
        'cacheness.entries.outputs, cacheness.entries.tags, cacheness.entries.provenance, '
        'cacheness.entries.key_id, cacheness.entries.mac FROM cacheness.entries WHERE '
        'cacheness.entries.namespace = $1::VARCHAR AND cacheness.entries.alias = $2 AND '
        'cacheness.entries.link IS NULL AND NOT (EXISTS (SELECT * FROM cacheness.disputes WHERE '
        'cacheness.disputes.namespace = cacheness.entries.namespace AND cacheness.disputes.key = '
        'cacheness.entries.key AND cacheness.disputes.at >= cacheness.entries.created_at)) LIMIT 9',
        {},
        ('namespace', 'alias')
    ),
    'links': Statement(
        'SELECT cacheness.entries.key, CASE WHEN (cacheness.entries.size BETWEEN 0 AND 1125899906842624) THEN '
        'cacheness.entries.size ELSE 0 END AS anon_1, cacheness.entries.blob, cacheness.entries.link FROM '
        'cacheness.entries WHERE cacheness.entries.namespace = $1::VARCHAR AND cacheness.entries.alias = ANY '
        '($2::BYTEA[]) AND cacheness.entries.link IS NOT NULL AND length(cacheness.entries.key) = 32 FOR '
        'UPDATE SKIP LOCKED',
        {},
        ('namespace', 'keys')
    ),
    'named_codes': Statement(
        'SELECT anon_1.key FROM unnest($1::BYTEA[]) AS anon_1(key) WHERE EXISTS (SELECT * FROM '
        'cacheness.entries WHERE cacheness.entries.namespace = $2::VARCHAR AND cacheness.entries.fn = '
        'anon_1.key)',
        {},
        ('keys', 'namespace')
    ),
    'keys_by_value': Statement(
        'SELECT cacheness.entries.value, cacheness.entries.key FROM cacheness.entries WHERE '
        'cacheness.entries.namespace = $1::VARCHAR AND cacheness.entries.value = ANY ($2::BYTEA[]) AND '
        'length(cacheness.entries.key) = 32 LIMIT 1000',
        {},
        ('namespace', 'keys')
    ),
    'swap': Statement(
        'UPDATE cacheness.entries SET expires_at=$1::BIGINT, key_id=$2::VARCHAR, mac=$3 WHERE '
        'cacheness.entries.namespace = $4::VARCHAR AND cacheness.entries.key = $5 AND cacheness.entries.blob '
        'IS NOT DISTINCT FROM $6::VARCHAR COLLATE "C" AND cacheness.entries.digest IS NOT DISTINCT FROM $7 '
        'AND cacheness.entries.created_at IS NOT DISTINCT FROM $8::BIGINT AND cacheness.entries.expires_at IS '
        'NOT DISTINCT FROM $9::BIGINT AND cacheness.entries.key_id IS NOT DISTINCT FROM $10::VARCHAR AND '
        'cacheness.entries.mac IS NOT DISTINCT FROM $11',
        {},
        ('new_expires_at', 'new_key_id', 'new_mac', 'namespace', 'key', 'old_blob', 'old_digest',
        'old_created_at', 'old_expires_at', 'old_key_id', 'old_mac')
    ),
    'totals': Statement(
        'SELECT (SELECT CAST(coalesce(sum(cacheness.totals.entries), 0) AS BIGINT) AS coalesce_1 FROM '
        'cacheness.totals WHERE cacheness.totals.namespace = $1::VARCHAR) AS anon_1, (SELECT '
        'CAST(coalesce(sum(cacheness.totals.bytes), 0) AS BIGINT) AS coalesce_2 FROM cacheness.totals WHERE '
        'cacheness.totals.namespace = $1::VARCHAR) AS anon_2',
        {},
        ('namespace',)
    ),
    'holdings': Statement(
        'SELECT kept.entries, kept.bytes, cacheness.quotas.max_bytes, cacheness.quotas.max_entries, '
        'cacheness.quotas.policy, cacheness.quotas.maintained_at FROM (SELECT '
        'CAST(coalesce(sum(cacheness.totals.entries), 0) AS BIGINT) AS entries, '
        'CAST(coalesce(sum(cacheness.totals.bytes), 0) AS BIGINT) AS bytes FROM cacheness.totals WHERE '
        'cacheness.totals.namespace = $1::VARCHAR) AS kept LEFT OUTER JOIN cacheness.quotas ON '
        'cacheness.quotas.namespace = $1::VARCHAR',
        {},
        ('namespace',)
    ),
    'add_totals': Statement(
        'INSERT INTO cacheness.totals (namespace, slot, entries, bytes) VALUES ($1::VARCHAR, '
        '(pg_backend_pid() & 63), $2::BIGINT, $3::BIGINT) ON CONFLICT (namespace, slot) DO UPDATE SET entries '
        '= (cacheness.totals.entries + excluded.entries), bytes = (cacheness.totals.bytes + excluded.bytes)',
        {},
        ('namespace', 'entries', 'bytes')
    ),
    'correct_totals': Statement(
        'INSERT INTO cacheness.totals (namespace, slot, entries, bytes) VALUES ($1::VARCHAR, 0, $2::BIGINT, '
        '$3::BIGINT) ON CONFLICT (namespace, slot) DO UPDATE SET entries = (cacheness.totals.entries + '
        'excluded.entries), bytes = (cacheness.totals.bytes + excluded.bytes)',
        {},
        ('namespace', 'entries', 'bytes')
    ),
    'recount': Statement(
        'SELECT (SELECT count(*) AS count_1 FROM cacheness.entries WHERE cacheness.entries.namespace = '
        '$1::VARCHAR) - (SELECT CAST(coalesce(sum(cacheness.totals.entries), 0) AS BIGINT) AS coalesce_1 FROM '
        'cacheness.totals WHERE cacheness.totals.namespace = $1::VARCHAR) AS anon_1, (SELECT '
        'CAST(coalesce(sum(CASE WHEN (cacheness.entries.size BETWEEN 0 AND 1125899906842624) THEN '
        'cacheness.entries.size ELSE 0 END), 0) AS BIGINT) AS coalesce_2 FROM cacheness.entries WHERE '
        'cacheness.entries.namespace = $1::VARCHAR) - (SELECT CAST(coalesce(sum(cacheness.totals.bytes), 0) '
        'AS BIGINT) AS coalesce_3 FROM cacheness.totals WHERE cacheness.totals.namespace = $1::VARCHAR) AS '
        'anon_2',
        {},
        ('namespace',)
    ),
    'set_quota': Statement(
        'INSERT INTO cacheness.quotas (namespace, max_bytes, max_entries, policy) VALUES ($1::VARCHAR, '
        '$2::BIGINT, $3::BIGINT, $4::VARCHAR) ON CONFLICT (namespace) DO UPDATE SET max_bytes = '
        'excluded.max_bytes, max_entries = excluded.max_entries, policy = excluded.policy WHERE '
        'cacheness.quotas.max_bytes IS DISTINCT FROM excluded.max_bytes OR cacheness.quotas.max_entries IS '
        'DISTINCT FROM excluded.max_entries OR cacheness.quotas.policy IS DISTINCT FROM excluded.policy',
        {},
        ('namespace', 'max_bytes', 'max_entries', 'policy')
    ),
    'note_maintenance': Statement(
        "INSERT INTO cacheness.quotas (namespace, policy, maintained_at) VALUES ($1::VARCHAR, 'lru', "
        '(extract(epoch FROM clock_timestamp()) * 1000000)::bigint) ON CONFLICT (namespace) DO UPDATE SET '
        'maintained_at = excluded.maintained_at',
        {},
        ('namespace',)
    ),
    'neighbours': Statement(
        'SELECT cacheness.entries.key, CASE WHEN (cacheness.entries.size BETWEEN 0 AND 1125899906842624) THEN '
        'cacheness.entries.size ELSE 0 END AS anon_1, cacheness.entries.created_at, '
        'coalesce(cacheness.entries.compute_seconds, $1) AS coalesce_1, coalesce((SELECT '
        'cacheness.uses.accessed_at FROM cacheness.uses WHERE cacheness.uses.namespace = '
        'cacheness.entries.namespace AND cacheness.uses.key = cacheness.entries.key), '
        'cacheness.entries.created_at) AS coalesce_3, coalesce((SELECT cacheness.uses.hits FROM '
        'cacheness.uses WHERE cacheness.uses.namespace = cacheness.entries.namespace AND cacheness.uses.key = '
        'cacheness.entries.key), 0) AS coalesce_4 FROM cacheness.entries WHERE cacheness.entries.namespace = '
        '$2::VARCHAR AND cacheness.entries.key >= $3 ORDER BY cacheness.entries.key LIMIT {limit}',
        {'coalesce_2': 0.0},
        ('coalesce_2', 'namespace', 'key')
    ),
    'functions': Statement(
        'WITH RECURSIVE names(name) AS (SELECT min(cacheness.entries.function) AS name FROM cacheness.entries '
        'WHERE cacheness.entries.namespace = $1::VARCHAR UNION ALL SELECT (SELECT '
        'min(cacheness.entries.function) AS min_1 FROM cacheness.entries WHERE cacheness.entries.namespace = '
        '$1::VARCHAR AND cacheness.entries.function > names.name) AS anon_1 FROM names WHERE names.name IS '
        'NOT NULL) SELECT names.name FROM names WHERE names.name IS NOT NULL',
        {},
        ('namespace',)
    ),
    'delete': Statement(
        'DELETE FROM cacheness.entries WHERE cacheness.entries.namespace = $1::VARCHAR AND '
        'cacheness.entries.key = ANY ($2::BYTEA[])',
        {},
        ('namespace', 'keys')
    ),
    'record_use': Statement(
        'UPDATE cacheness.uses SET accessed_at=CASE WHEN (cacheness.uses.accessed_at > $1::BIGINT) THEN '
        'cacheness.uses.accessed_at ELSE $1::BIGINT END, hits=(cacheness.uses.hits + $2::BIGINT) WHERE '
        'cacheness.uses.namespace = $3::VARCHAR AND cacheness.uses.key = $4 AND (EXISTS (SELECT * FROM '
        'cacheness.entries WHERE cacheness.uses.namespace = cacheness.entries.namespace AND '
        'cacheness.uses.key = cacheness.entries.key))',
        {},
        ('at', 'uses', 'namespace', 'key')
    ),
    'uses': Statement(
        'SELECT cacheness.uses.key, cacheness.uses.accessed_at, cacheness.uses.hits FROM cacheness.entries '
        'JOIN cacheness.uses ON cacheness.uses.namespace = cacheness.entries.namespace AND cacheness.uses.key '
        '= cacheness.entries.key WHERE cacheness.entries.namespace = $1::VARCHAR AND cacheness.entries.key = '
        'ANY ($2::BYTEA[])',
        {},
        ('namespace', 'keys')
    ),
    'delete_uses': Statement(
        'DELETE FROM cacheness.uses WHERE cacheness.uses.namespace = $1::VARCHAR AND cacheness.uses.key = ANY '
        '($2::BYTEA[])',
        {},
        ('namespace', 'keys')
    ),
    'untag': Statement(
        'DELETE FROM cacheness.tags WHERE cacheness.tags.namespace = $1::VARCHAR AND cacheness.tags.key = ANY '
        '($2::BYTEA[])',
        {},
        ('namespace', 'keys')
    ),
    'record_activity': Statement(
        'INSERT INTO cacheness.activity (namespace, span, hour, function, outcome, reason, who, calls, '
        'seconds_spent, seconds_saved, bytes) VALUES ($1::VARCHAR, $2::VARCHAR, $3::BIGINT, $4::VARCHAR, '
        '$5::VARCHAR, $6::VARCHAR, $7::VARCHAR, $8::BIGINT, $9, $10, $11::BIGINT) ON CONFLICT (namespace, '
        'span, hour, function, outcome, reason, who) DO UPDATE SET calls = excluded.calls, seconds_spent = '
        'excluded.seconds_spent, seconds_saved = excluded.seconds_saved, bytes = excluded.bytes',
        {},
        ('namespace', 'span', 'hour', 'function', 'outcome', 'reason', 'who', 'calls', 'seconds_spent',
        'seconds_saved', 'bytes')
    ),
    'add_activity': Statement(
        'INSERT INTO cacheness.activity (namespace, span, hour, function, outcome, reason, who, calls, '
        'seconds_spent, seconds_saved, bytes) VALUES ($1::VARCHAR, $2::VARCHAR, $3::BIGINT, $4::VARCHAR, '
        '$5::VARCHAR, $6::VARCHAR, $7::VARCHAR, $8::BIGINT, $9, $10, $11::BIGINT) ON CONFLICT (namespace, '
        'span, hour, function, outcome, reason, who) DO UPDATE SET calls = (cacheness.activity.calls + '
        'excluded.calls), seconds_spent = (cacheness.activity.seconds_spent + excluded.seconds_spent), '
        'seconds_saved = (cacheness.activity.seconds_saved + excluded.seconds_saved), bytes = '
        '(cacheness.activity.bytes + excluded.bytes)',
        {},
        ('namespace', 'span', 'hour', 'function', 'outcome', 'reason', 'who', 'calls', 'seconds_spent',
        'seconds_saved', 'bytes')
    ),
    'ended_activity': Statement(
        'SELECT cacheness.activity.span, cacheness.activity.hour, cacheness.activity.function, '
        'cacheness.activity.outcome, cacheness.activity.reason, cacheness.activity.who, '
        'cacheness.activity.calls, cacheness.activity.seconds_spent, cacheness.activity.seconds_saved, '
        'cacheness.activity.bytes FROM cacheness.activity WHERE cacheness.activity.namespace = $1::VARCHAR '
        "AND cacheness.activity.who != '' AND cacheness.activity.hour < $2::BIGINT ORDER BY "
        'cacheness.activity.hour LIMIT $3::INTEGER FOR UPDATE SKIP LOCKED',
        {},
        ('namespace', 'before', 'limit')
    ),
    'old_activity': Statement(
        'SELECT cacheness.activity.span, cacheness.activity.hour, cacheness.activity.function, '
        'cacheness.activity.outcome, cacheness.activity.reason, cacheness.activity.who, '
        'cacheness.activity.calls, cacheness.activity.seconds_spent, cacheness.activity.seconds_saved, '
        'cacheness.activity.bytes FROM cacheness.activity WHERE cacheness.activity.namespace = $1::VARCHAR '
        "AND cacheness.activity.span = $2::VARCHAR AND cacheness.activity.who = '' AND "
        'cacheness.activity.hour < $3::BIGINT ORDER BY cacheness.activity.hour LIMIT $4::INTEGER FOR UPDATE '
        'SKIP LOCKED',
        {},
        ('namespace', 'span', 'before', 'limit')
    ),
    'delete_activity': Statement(
        'DELETE FROM cacheness.activity WHERE cacheness.activity.namespace = $1::VARCHAR AND '
        'cacheness.activity.span = $2::VARCHAR AND cacheness.activity.hour = $3::BIGINT AND '
        'cacheness.activity.function = $4::VARCHAR AND cacheness.activity.outcome = $5::VARCHAR AND '
        'cacheness.activity.reason = $6::VARCHAR AND cacheness.activity.who = $7::VARCHAR',
        {},
        ('namespace', 'span', 'hour', 'function', 'outcome', 'reason', 'who')
    ),
    'all_activity': Statement(
        "SELECT 'all' AS span, 0 AS hour, found.function, found.outcome, found.reason, CAST(sum(found.calls) "
        'AS BIGINT) AS calls, CAST(sum(found.seconds_spent) AS DOUBLE PRECISION) AS seconds_spent, '
        'CAST(sum(found.seconds_saved) AS DOUBLE PRECISION) AS seconds_saved, CAST(sum(found.bytes) AS '
        'BIGINT) AS bytes FROM (SELECT cacheness.activity.function AS function, cacheness.activity.outcome AS '
        'outcome, cacheness.activity.reason AS reason, cacheness.activity.calls AS calls, '
        'cacheness.activity.seconds_spent AS seconds_spent, cacheness.activity.seconds_saved AS '
        'seconds_saved, cacheness.activity.bytes AS bytes FROM cacheness.activity WHERE '
        "cacheness.activity.namespace = $1::VARCHAR AND cacheness.activity.span = 'all' UNION ALL SELECT "
        'cacheness.activity.function AS function, cacheness.activity.outcome AS outcome, '
        'cacheness.activity.reason AS reason, cacheness.activity.calls AS calls, '
        'cacheness.activity.seconds_spent AS seconds_spent, cacheness.activity.seconds_saved AS '
        'seconds_saved, cacheness.activity.bytes AS bytes FROM cacheness.activity WHERE '
        "cacheness.activity.namespace = $1::VARCHAR AND cacheness.activity.who != '' AND "
        'cacheness.activity.hour >= 0) AS found GROUP BY found.function, found.outcome, found.reason',
        {},
        ('namespace',)
    ),
    'activity_since': Statement(
        "SELECT 'all' AS span, 0 AS hour, found.function, found.outcome, found.reason, CAST(sum(found.calls) "
        'AS BIGINT) AS calls, CAST(sum(found.seconds_spent) AS DOUBLE PRECISION) AS seconds_spent, '
        'CAST(sum(found.seconds_saved) AS DOUBLE PRECISION) AS seconds_saved, CAST(sum(found.bytes) AS '
        'BIGINT) AS bytes FROM (SELECT cacheness.activity.function AS function, cacheness.activity.outcome AS '
        'outcome, cacheness.activity.reason AS reason, cacheness.activity.calls AS calls, '
        'cacheness.activity.seconds_spent AS seconds_spent, cacheness.activity.seconds_saved AS '
        'seconds_saved, cacheness.activity.bytes AS bytes FROM cacheness.activity WHERE '
        "cacheness.activity.namespace = $1::VARCHAR AND cacheness.activity.who != '' AND "
        'cacheness.activity.hour >= $2::BIGINT UNION ALL SELECT cacheness.activity.function AS function, '
        'cacheness.activity.outcome AS outcome, cacheness.activity.reason AS reason, cacheness.activity.calls '
        'AS calls, cacheness.activity.seconds_spent AS seconds_spent, cacheness.activity.seconds_saved AS '
        'seconds_saved, cacheness.activity.bytes AS bytes FROM cacheness.activity WHERE '
        "cacheness.activity.namespace = $1::VARCHAR AND cacheness.activity.span = 'hour' AND "
        "cacheness.activity.who = '' AND cacheness.activity.hour >= $2::BIGINT AND cacheness.activity.hour < "
        '$3::BIGINT UNION ALL SELECT cacheness.activity.function AS function, cacheness.activity.outcome AS '
        'outcome, cacheness.activity.reason AS reason, cacheness.activity.calls AS calls, '
        'cacheness.activity.seconds_spent AS seconds_spent, cacheness.activity.seconds_saved AS '
        'seconds_saved, cacheness.activity.bytes AS bytes FROM cacheness.activity WHERE '
        "cacheness.activity.namespace = $1::VARCHAR AND cacheness.activity.span = 'day' AND "
        'cacheness.activity.hour >= $3::BIGINT AND cacheness.activity.hour < $4::BIGINT UNION ALL SELECT '
        'cacheness.activity.function AS function, cacheness.activity.outcome AS outcome, '
        'cacheness.activity.reason AS reason, cacheness.activity.calls AS calls, '
        'cacheness.activity.seconds_spent AS seconds_spent, cacheness.activity.seconds_saved AS '
        'seconds_saved, cacheness.activity.bytes AS bytes FROM cacheness.activity WHERE '
        "cacheness.activity.namespace = $1::VARCHAR AND cacheness.activity.span = 'month' AND "
        'cacheness.activity.hour >= $4::BIGINT) AS found GROUP BY found.function, found.outcome, found.reason',
        {},
        ('namespace', 'hours', 'days', 'months')
    ),
    'activity_by_hour': Statement(
        "SELECT found.span, found.hour, '' AS function, found.outcome, '' AS reason, CAST(sum(found.calls) AS "
        'BIGINT) AS calls, CAST(sum(found.seconds_spent) AS DOUBLE PRECISION) AS seconds_spent, '
        'CAST(sum(found.seconds_saved) AS DOUBLE PRECISION) AS seconds_saved, CAST(sum(found.bytes) AS '
        "BIGINT) AS bytes FROM (SELECT 'hour' AS span, cacheness.activity.hour AS hour, "
        'cacheness.activity.outcome AS outcome, cacheness.activity.calls AS calls, '
        'cacheness.activity.seconds_spent AS seconds_spent, cacheness.activity.seconds_saved AS '
        'seconds_saved, cacheness.activity.bytes AS bytes FROM cacheness.activity WHERE '
        "cacheness.activity.namespace = $1::VARCHAR AND cacheness.activity.who != '' AND "
        "cacheness.activity.hour >= $2::BIGINT UNION ALL SELECT 'hour' AS span, cacheness.activity.hour AS "
        'hour, cacheness.activity.outcome AS outcome, cacheness.activity.calls AS calls, '
        'cacheness.activity.seconds_spent AS seconds_spent, cacheness.activity.seconds_saved AS '
        'seconds_saved, cacheness.activity.bytes AS bytes FROM cacheness.activity WHERE '
        "cacheness.activity.namespace = $1::VARCHAR AND cacheness.activity.span = 'hours' AND "
        "cacheness.activity.hour >= $2::BIGINT UNION ALL SELECT 'day' AS span, cacheness.activity.hour AS "
        'hour, cacheness.activity.outcome AS outcome, cacheness.activity.calls AS calls, '
        'cacheness.activity.seconds_spent AS seconds_spent, cacheness.activity.seconds_saved AS '
        'seconds_saved, cacheness.activity.bytes AS bytes FROM cacheness.activity WHERE '
        "cacheness.activity.namespace = $1::VARCHAR AND cacheness.activity.span = 'days' AND "
        'cacheness.activity.hour >= $3::BIGINT AND cacheness.activity.hour < $2::BIGINT UNION ALL SELECT '
        "'month' AS span, cacheness.activity.hour AS hour, cacheness.activity.outcome AS outcome, "
        'cacheness.activity.calls AS calls, cacheness.activity.seconds_spent AS seconds_spent, '
        'cacheness.activity.seconds_saved AS seconds_saved, cacheness.activity.bytes AS bytes FROM '
        'cacheness.activity WHERE cacheness.activity.namespace = $1::VARCHAR AND cacheness.activity.span = '
        "'months' AND cacheness.activity.hour >= $4::BIGINT AND cacheness.activity.hour < $3::BIGINT) AS "
        'found GROUP BY found.span, found.hour, found.outcome',
        {},
        ('namespace', 'hours', 'days', 'months')
    ),
    'note_unstored': Statement(
        'INSERT INTO cacheness.not_stored (namespace, key, reason, at) VALUES ($1::VARCHAR, $2, $3::VARCHAR, '
        '(extract(epoch FROM clock_timestamp()) * 1000000)::bigint) ON CONFLICT (namespace, key) DO UPDATE '
        'SET reason = excluded.reason, at = excluded.at WHERE cacheness.not_stored.reason != excluded.reason '
        'OR cacheness.not_stored.at < excluded.at - 86400000000',
        {},
        ('namespace', 'key', 'reason')
    ),
    'unstored': Statement(
        'SELECT cacheness.not_stored.key, cacheness.not_stored.reason FROM cacheness.not_stored WHERE '
        'cacheness.not_stored.namespace = $1::VARCHAR AND cacheness.not_stored.key = ANY ($2::BYTEA[]) AND '
        'cacheness.not_stored.at >= (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $3::BIGINT',
        {},
        ('namespace', 'keys', 'age')
    ),
    'delete_unstored': Statement(
        'DELETE FROM cacheness.not_stored WHERE cacheness.not_stored.namespace = $1::VARCHAR AND '
        'cacheness.not_stored.at < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $2::BIGINT',
        {},
        ('namespace', 'age')
    ),
    'note_function': Statement(
        'INSERT INTO cacheness.functions (namespace, digest, name, module, components, first_seen, last_seen) '
        'VALUES ($1::VARCHAR, $2, $3::VARCHAR, $4::VARCHAR, $5::VARCHAR, ((extract(epoch FROM '
        'clock_timestamp()) * 1000000)::bigint - (extract(epoch FROM clock_timestamp()) * 1000000)::bigint % '
        '86400000000), ((extract(epoch FROM clock_timestamp()) * 1000000)::bigint - (extract(epoch FROM '
        'clock_timestamp()) * 1000000)::bigint % 86400000000)) ON CONFLICT (namespace, digest) DO UPDATE SET '
        'name = excluded.name, module = excluded.module, components = excluded.components, last_seen = '
        'excluded.last_seen WHERE cacheness.functions.last_seen < excluded.last_seen OR '
        'cacheness.functions.name != excluded.name OR cacheness.functions.module != excluded.module OR '
        'cacheness.functions.components != excluded.components',
        {},
        ('namespace', 'digest', 'name', 'module', 'components')
    ),
    'function_codes': Statement(
        'SELECT cacheness.functions.digest, cacheness.functions.name, cacheness.functions.module, '
        'cacheness.functions.components FROM cacheness.functions WHERE cacheness.functions.namespace = '
        '$1::VARCHAR AND cacheness.functions.digest = ANY ($2::BYTEA[])',
        {},
        ('namespace', 'keys')
    ),
    'old_functions': Statement(
        'SELECT cacheness.functions.digest, EXISTS (SELECT * FROM cacheness.entries WHERE '
        'cacheness.entries.namespace = cacheness.functions.namespace AND cacheness.entries.fn = '
        'cacheness.functions.digest) AS anon_1 FROM cacheness.functions WHERE cacheness.functions.namespace = '
        '$1::VARCHAR AND cacheness.functions.last_seen < (extract(epoch FROM clock_timestamp()) * '
        '1000000)::bigint - $2::BIGINT ORDER BY cacheness.functions.last_seen LIMIT $3::INTEGER FOR UPDATE OF '
        'functions SKIP LOCKED',
        {},
        ('namespace', 'age', 'limit')
    ),
    'see_function': Statement(
        'UPDATE cacheness.functions SET last_seen=((extract(epoch FROM clock_timestamp()) * 1000000)::bigint '
        '- (extract(epoch FROM clock_timestamp()) * 1000000)::bigint % 86400000000) WHERE '
        'cacheness.functions.namespace = $1::VARCHAR AND cacheness.functions.digest = $2',
        {},
        ('namespace', 'digest')
    ),
    'delete_function': Statement(
        'DELETE FROM cacheness.functions WHERE cacheness.functions.namespace = $1::VARCHAR AND '
        'cacheness.functions.digest = $2',
        {},
        ('namespace', 'digest')
    ),
    'dispute': Statement(
        'INSERT INTO cacheness.disputes (namespace, key, at, stored, computed, function, detail) VALUES '
        '($1::VARCHAR, $2, $3::BIGINT, $4, $5, $6::VARCHAR, $7::VARCHAR) ON CONFLICT (namespace, key) DO '
        'UPDATE SET at = excluded.at, stored = excluded.stored, computed = excluded.computed, function = '
        'excluded.function, detail = excluded.detail',
        {},
        ('namespace', 'key', 'at', 'stored', 'computed', 'function', 'detail')
    ),
    'count_disputes': Statement(
        'SELECT count(*) AS count_1 FROM cacheness.disputes WHERE cacheness.disputes.namespace = $1::VARCHAR '
        'AND cacheness.disputes.function = $2::VARCHAR AND cacheness.disputes.at > (extract(epoch FROM '
        'clock_timestamp()) * 1000000)::bigint - 86400000000',
        {},
        ('namespace', 'function')
    ),
    'disputes': Statement(
        'SELECT cacheness.disputes.key, cacheness.disputes.at, cacheness.disputes.stored, '
        'cacheness.disputes.computed, cacheness.disputes.function, cacheness.disputes.detail FROM '
        'cacheness.disputes JOIN cacheness.entries ON cacheness.disputes.namespace = '
        'cacheness.entries.namespace AND cacheness.disputes.key = cacheness.entries.key AND '
        'cacheness.disputes.at >= cacheness.entries.created_at WHERE cacheness.disputes.namespace = '
        '$1::VARCHAR ORDER BY cacheness.disputes.key',
        {},
        ('namespace',)
    ),
    'disputes_of': Statement(
        'SELECT cacheness.disputes.key, cacheness.disputes.at, cacheness.disputes.stored, '
        'cacheness.disputes.computed, cacheness.disputes.function, cacheness.disputes.detail FROM '
        'cacheness.disputes JOIN cacheness.entries ON cacheness.disputes.namespace = '
        'cacheness.entries.namespace AND cacheness.disputes.key = cacheness.entries.key AND '
        'cacheness.disputes.at >= cacheness.entries.created_at WHERE cacheness.disputes.namespace = '
        '$1::VARCHAR AND cacheness.disputes.key = ANY ($2::BYTEA[]) ORDER BY cacheness.disputes.key',
        {},
        ('namespace', 'keys')
    ),
    'settle': Statement(
        'DELETE FROM cacheness.disputes WHERE cacheness.disputes.namespace = $1::VARCHAR AND '
        'cacheness.disputes.key = ANY ($2::BYTEA[])',
        {},
        ('namespace', 'keys')
    ),
    'delete_stale_disputes': Statement(
        'DELETE FROM cacheness.disputes WHERE cacheness.disputes.namespace = $1::VARCHAR AND NOT (EXISTS '
        '(SELECT * FROM cacheness.entries WHERE cacheness.disputes.namespace = cacheness.entries.namespace '
        'AND cacheness.disputes.key = cacheness.entries.key AND cacheness.disputes.at >= '
        'cacheness.entries.created_at))',
        {},
        ('namespace',)
    ),
    'equivalences': Statement(
        'SELECT cacheness.equivalences.namespace, cacheness.equivalences."new", cacheness.equivalences."old", '
        'cacheness.equivalences.store, cacheness.equivalences.parameters, cacheness.equivalences.evidence, '
        'cacheness.equivalences.created_at, cacheness.equivalences.until, cacheness.equivalences.by, '
        'cacheness.equivalences.key_id, cacheness.equivalences.mac FROM cacheness.equivalences WHERE '
        'cacheness.equivalences.namespace = $1::VARCHAR ORDER BY cacheness.equivalences."new", '
        'cacheness.equivalences."old" LIMIT 1000',
        {},
        ('namespace',)
    ),
    'find_equivalent': Statement(
        'SELECT cacheness.entries.namespace, cacheness.entries.key, cacheness.entries.blob, '
        'cacheness.entries.inline, cacheness.entries.size, cacheness.entries.raw_size, '
        'cacheness.entries.digest, cacheness.entries.codec, cacheness.entries.created_at, '
        'cacheness.entries.expires_at, cacheness.entries.compute_seconds, cacheness.entries.function, '
        'cacheness.entries.prefix, cacheness.entries.args, cacheness.entries.components, '
        'cacheness.entries.value, cacheness.entries.fn, cacheness.entries.alias, cacheness.entries.link, '
        'cacheness.entries.outputs, cacheness.entries.tags, cacheness.entries.provenance, '
        'cacheness.entries.key_id, cacheness.entries.mac, cacheness.equivalences.namespace AS namespace_1, '
        'cacheness.equivalences."new", cacheness.equivalences."old", cacheness.equivalences.store, '
        'cacheness.equivalences.parameters, cacheness.equivalences.evidence, '
        'cacheness.equivalences.created_at AS created_at_1, cacheness.equivalences.until, '
        'cacheness.equivalences.by, cacheness.equivalences.key_id AS key_id_1, cacheness.equivalences.mac AS '
        'mac_1 FROM cacheness.entries, cacheness.equivalences WHERE cacheness.entries.namespace = $1::VARCHAR '
        'AND cacheness.entries.key = ANY ($2::BYTEA[]) AND NOT (EXISTS (SELECT * FROM cacheness.disputes '
        'WHERE cacheness.disputes.namespace = cacheness.entries.namespace AND cacheness.disputes.key = '
        'cacheness.entries.key AND cacheness.disputes.at >= cacheness.entries.created_at)) AND '
        'cacheness.equivalences.namespace = $1::VARCHAR AND cacheness.equivalences."new" = $3',
        {},
        ('namespace', 'keys', 'new')
    ),
    'set_equivalence': Statement(
        'INSERT INTO cacheness.equivalences (namespace, "new", "old", store, parameters, evidence, '
        'created_at, until, by, key_id, mac) VALUES ($1::VARCHAR, $2, $3, $4::VARCHAR, $5::VARCHAR, '
        '$6::VARCHAR, $7::BIGINT, $8::BIGINT, $9::VARCHAR, $10::VARCHAR, $11) ON CONFLICT (namespace, "new", '
        '"old") DO UPDATE SET store = excluded.store, parameters = excluded.parameters, evidence = '
        'excluded.evidence, created_at = excluded.created_at, until = excluded.until, by = excluded.by, '
        'key_id = excluded.key_id, mac = excluded.mac WHERE cacheness.equivalences.until > 0',
        {},
        ('namespace', 'new', 'old', 'store', 'parameters', 'evidence', 'created_at', 'until', 'by',
        'key_id', 'mac')
    ),
    'delete_equivalence': Statement(
        'DELETE FROM cacheness.equivalences WHERE cacheness.equivalences.namespace = $1::VARCHAR AND '
        'cacheness.equivalences."new" = $2 AND cacheness.equivalences."old" = $3',
        {},
        ('namespace', 'new', 'old')
    ),
    'delete_old_equivalences': Statement(
        'DELETE FROM cacheness.equivalences WHERE cacheness.equivalences.namespace = $1::VARCHAR AND '
        'cacheness.equivalences.created_at < $2::BIGINT AND cacheness.equivalences.until >= 0',
        {},
        ('namespace', 'before')
    ),
    'bury': Statement(
        'INSERT INTO cacheness.tombstones (blob, at) VALUES ($1::VARCHAR, (extract(epoch FROM '
        'clock_timestamp()) * 1000000)::bigint) ON CONFLICT DO NOTHING',
        {},
        ('blob',)
    ),
    'tombstones': Statement(
        'SELECT cacheness.tombstones.blob FROM cacheness.tombstones WHERE cacheness.tombstones.blob > '
        '$1::VARCHAR AND cacheness.tombstones.blob >= $2::VARCHAR AND cacheness.tombstones.blob < $3::VARCHAR '
        'ORDER BY cacheness.tombstones.blob LIMIT $4::INTEGER',
        {},
        ('after', 'first', 'last', 'limit')
    ),
    'clear_tombstone': Statement(
        'DELETE FROM cacheness.tombstones WHERE cacheness.tombstones.blob = $1::VARCHAR',
        {},
        ('name',)
    ),
    'open_session': Statement(
        'INSERT INTO cacheness.sessions (id, host, boot_id, pid_ns, pid, pid_start, state, fenced_at) VALUES '
        '($1::VARCHAR, $2::VARCHAR, $3::VARCHAR, $4::VARCHAR, $5::BIGINT, $6::VARCHAR, $7::VARCHAR, '
        '$8::BIGINT)',
        {},
        ('id', 'host', 'boot_id', 'pid_ns', 'pid', 'pid_start', 'state', 'fenced_at')
    ),
    'retire': Statement(
        'UPDATE cacheness.sessions SET state=$1::VARCHAR, fenced_at=(extract(epoch FROM clock_timestamp()) * '
        "1000000)::bigint WHERE cacheness.sessions.id = $2::VARCHAR AND cacheness.sessions.state = 'live'",
        {},
        ('new_state', 'session')
    ),
    'live_sessions': Statement(
        'SELECT cacheness.sessions.id, cacheness.sessions.host, cacheness.sessions.boot_id, '
        'cacheness.sessions.pid_ns, cacheness.sessions.pid, cacheness.sessions.pid_start, '
        'coalesce(cacheness.leases.until < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, true) '
        'AS coalesce_1 FROM cacheness.sessions LEFT OUTER JOIN cacheness.leases ON cacheness.leases.session = '
        "cacheness.sessions.id WHERE cacheness.sessions.state = 'live'",
        {},
        ()
    ),
    'retired_sessions': Statement(
        'SELECT cacheness.sessions.id FROM cacheness.sessions WHERE cacheness.sessions.id = ANY ($1::TEXT[]) '
        "AND cacheness.sessions.state != 'live'",
        {},
        ('keys',)
    ),
    'condemn': Statement(
        'INSERT INTO cacheness.sessions (id, host, boot_id, pid_ns, pid, pid_start, state, fenced_at) VALUES '
        '($1::VARCHAR, $2::VARCHAR, $3::VARCHAR, $4::VARCHAR, $5::BIGINT, $6::VARCHAR, $7::VARCHAR, '
        '(extract(epoch FROM clock_timestamp()) * 1000000)::bigint) ON CONFLICT DO NOTHING RETURNING '
        'cacheness.sessions.id',
        {},
        ('id', 'host', 'boot_id', 'pid_ns', 'pid', 'pid_start', 'state')
    ),
    'delete_sessions': Statement(
        "DELETE FROM cacheness.sessions WHERE cacheness.sessions.state != 'live' AND "
        'cacheness.sessions.fenced_at < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - '
        '$1::BIGINT',
        {},
        ('age',)
    ),
    'check_times': Statement(
        'SELECT cacheness.checks.shard, cacheness.checks.at FROM cacheness.checks WHERE '
        'cacheness.checks.namespace = $1::VARCHAR',
        {},
        ('namespace',)
    ),
    'record_check': Statement(
        'INSERT INTO cacheness.checks (namespace, shard, at) VALUES ($1::VARCHAR, $2::INTEGER, $3::BIGINT) ON '
        'CONFLICT (namespace, shard) DO UPDATE SET at = excluded.at',
        {},
        ('namespace', 'shard', 'at')
    ),
    'take_compute_lease': Statement(
        'INSERT INTO cacheness.compute_leases (namespace, key, token, until) VALUES ($1::VARCHAR, $2, '
        '$3::VARCHAR, ((extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $4::BIGINT)) ON CONFLICT '
        '(namespace, key) DO UPDATE SET token = excluded.token, until = excluded.until WHERE '
        'cacheness.compute_leases.until < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint OR '
        'cacheness.compute_leases.token = excluded.token',
        {},
        ('namespace', 'key', 'token', 'microseconds')
    ),
    'end_compute_lease': Statement(
        'DELETE FROM cacheness.compute_leases WHERE cacheness.compute_leases.namespace = $1::VARCHAR AND '
        'cacheness.compute_leases.key = $2 AND cacheness.compute_leases.token = $3::VARCHAR',
        {},
        ('namespace', 'key', 'token')
    ),
    'compute_lease_holder': Statement(
        'SELECT cacheness.compute_leases.token FROM cacheness.compute_leases WHERE '
        'cacheness.compute_leases.namespace = $1::VARCHAR AND cacheness.compute_leases.key = $2 AND '
        'cacheness.compute_leases.until >= (extract(epoch FROM clock_timestamp()) * 1000000)::bigint',
        {},
        ('namespace', 'key')
    ),
    'publish': Statement(
        'WITH writer AS (SELECT cacheness.sessions.id AS id FROM cacheness.sessions WHERE '
        "cacheness.sessions.id = $25::VARCHAR AND cacheness.sessions.state = 'live' FOR SHARE), put AS "
        '(INSERT INTO cacheness.entries (namespace, key, blob, inline, size, raw_size, digest, codec, '
        'created_at, expires_at, compute_seconds, function, prefix, args, components, value, fn, alias, link, '
        'outputs, tags, provenance, key_id, mac) SELECT CAST($1::VARCHAR AS TEXT) AS anon_1, CAST($2 AS '
        'BYTEA) AS anon_2, CAST($3::VARCHAR AS TEXT) AS anon_3, CAST($4 AS BYTEA) AS anon_4, CAST($5::BIGINT '
        'AS BIGINT) AS anon_5, CAST($6::BIGINT AS BIGINT) AS anon_6, CAST($7 AS BYTEA) AS anon_7, '
        'CAST($8::VARCHAR AS TEXT) AS anon_8, CAST($9::BIGINT AS BIGINT) AS anon_9, CAST($10::BIGINT AS '
        'BIGINT) AS anon_10, CAST($11 AS DOUBLE PRECISION) AS anon_11, CAST($12::VARCHAR AS TEXT) AS anon_12, '
        'CAST($13::VARCHAR AS TEXT) AS anon_13, CAST($14 AS BYTEA) AS anon_14, CAST($15::VARCHAR AS TEXT) AS '
        'anon_15, CAST($16 AS BYTEA) AS anon_16, CAST($17 AS BYTEA) AS anon_17, CAST($18 AS BYTEA) AS '
        'anon_18, CAST($19 AS BYTEA) AS anon_19, CAST($20::VARCHAR AS TEXT) AS anon_20, CAST($21::VARCHAR AS '
        'TEXT) AS anon_21, CAST($22::VARCHAR AS TEXT) AS anon_22, CAST($23::VARCHAR AS TEXT) AS anon_23, '
        'CAST($24 AS BYTEA) AS anon_24 WHERE EXISTS (SELECT * FROM writer WHERE NOT CAST($26 AS BOOLEAN) OR '
        'abs(CAST($27::BIGINT AS BIGINT) - (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) <= '
        '60000000 AND abs(CAST($28::BIGINT AS BIGINT) - (extract(epoch FROM clock_timestamp()) * '
        '1000000)::bigint) <= 60000000) ON CONFLICT (namespace, key) DO UPDATE SET blob = excluded.blob, '
        'inline = excluded.inline, size = excluded.size, raw_size = excluded.raw_size, digest = '
        'excluded.digest, codec = excluded.codec, created_at = excluded.created_at, expires_at = '
        'excluded.expires_at, compute_seconds = excluded.compute_seconds, function = excluded.function, '
        'prefix = excluded.prefix, args = excluded.args, components = excluded.components, value = '
        'excluded.value, fn = excluded.fn, alias = excluded.alias, link = excluded.link, outputs = '
        'excluded.outputs, tags = excluded.tags, provenance = excluded.provenance, key_id = excluded.key_id, '
        'mac = excluded.mac, replaced = cacheness.entries.blob, replaced_size = cacheness.entries.size WHERE '
        '(excluded.link IS NULL OR cacheness.entries.link IS NOT NULL) AND (CAST($26 AS BOOLEAN) OR '
        'cacheness.entries.created_at <= excluded.created_at) RETURNING cacheness.entries.namespace, '
        'cacheness.entries.key, cacheness.entries.replaced, cacheness.entries.blob, '
        'cacheness.entries.created_at, cacheness.entries.tags, cacheness.entries.prefix, '
        'cacheness.entries.size, cacheness.entries.replaced_size), new_tombstones AS (INSERT INTO '
        'cacheness.tombstones (blob, at) SELECT put.replaced AS replaced, (extract(epoch FROM '
        'clock_timestamp()) * 1000000)::bigint FROM put WHERE put.replaced IS NOT NULL AND put.replaced IS '
        'DISTINCT FROM put.blob ON CONFLICT DO NOTHING), used AS (INSERT INTO cacheness.uses (namespace, key, '
        'accessed_at, hits) SELECT put.namespace AS namespace, put.key AS key, put.created_at AS created_at, '
        '0 FROM put ON CONFLICT (namespace, key) DO UPDATE SET accessed_at = excluded.accessed_at, hits = '
        'excluded.hits), counted AS (INSERT INTO cacheness.totals (namespace, slot, entries, bytes) SELECT '
        'put.namespace AS namespace, (pg_backend_pid() & 63), CAST(sum(CAST(put.replaced_size IS NULL AS '
        'INTEGER)) AS BIGINT) AS sum_1, CAST(sum(CASE WHEN (put.size BETWEEN 0 AND 1125899906842624) THEN '
        'put.size ELSE 0 END - coalesce(CASE WHEN (put.replaced_size BETWEEN 0 AND 1125899906842624) THEN '
        'put.replaced_size ELSE 0 END, 0)) AS BIGINT) AS sum_2 FROM put GROUP BY put.namespace ORDER BY '
        'put.namespace ON CONFLICT (namespace, slot) DO UPDATE SET entries = (cacheness.totals.entries + '
        'excluded.entries), bytes = (cacheness.totals.bytes + excluded.bytes)) SELECT CASE WHEN (put.replaced '
        'IS NOT NULL AND put.replaced IS DISTINCT FROM put.blob) THEN put.replaced END AS anon_25, '
        'put.namespace, put.key FROM writer LEFT OUTER JOIN put ON true',
        {},
        ('namespace', 'key', 'blob', 'inline', 'size', 'raw_size', 'digest', 'codec', 'created_at',
        'expires_at', 'compute_seconds', 'function', 'prefix', 'args', 'components', 'value', 'fn', 'alias',
        'link', 'outputs', 'tags', 'provenance', 'key_id', 'mac', 'session', 'fresh', 'earliest', 'latest')
    ),
    'publish_tagged': Statement(
        'WITH writer AS (SELECT cacheness.sessions.id AS id FROM cacheness.sessions WHERE '
        "cacheness.sessions.id = $25::VARCHAR AND cacheness.sessions.state = 'live' FOR SHARE), put AS "
        '(INSERT INTO cacheness.entries (namespace, key, blob, inline, size, raw_size, digest, codec, '
        'created_at, expires_at, compute_seconds, function, prefix, args, components, value, fn, alias, link, '
        'outputs, tags, provenance, key_id, mac) SELECT CAST($1::VARCHAR AS TEXT) AS anon_1, CAST($2 AS '
        'BYTEA) AS anon_2, CAST($3::VARCHAR AS TEXT) AS anon_3, CAST($4 AS BYTEA) AS anon_4, CAST($5::BIGINT '
        'AS BIGINT) AS anon_5, CAST($6::BIGINT AS BIGINT) AS anon_6, CAST($7 AS BYTEA) AS anon_7, '
        'CAST($8::VARCHAR AS TEXT) AS anon_8, CAST($9::BIGINT AS BIGINT) AS anon_9, CAST($10::BIGINT AS '
        'BIGINT) AS anon_10, CAST($11 AS DOUBLE PRECISION) AS anon_11, CAST($12::VARCHAR AS TEXT) AS anon_12, '
        'CAST($13::VARCHAR AS TEXT) AS anon_13, CAST($14 AS BYTEA) AS anon_14, CAST($15::VARCHAR AS TEXT) AS '
        'anon_15, CAST($16 AS BYTEA) AS anon_16, CAST($17 AS BYTEA) AS anon_17, CAST($18 AS BYTEA) AS '
        'anon_18, CAST($19 AS BYTEA) AS anon_19, CAST($20::VARCHAR AS TEXT) AS anon_20, CAST($21::VARCHAR AS '
        'TEXT) AS anon_21, CAST($22::VARCHAR AS TEXT) AS anon_22, CAST($23::VARCHAR AS TEXT) AS anon_23, '
        'CAST($24 AS BYTEA) AS anon_24 WHERE EXISTS (SELECT * FROM writer WHERE NOT CAST($26 AS BOOLEAN) OR '
        'abs(CAST($27::BIGINT AS BIGINT) - (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) <= '
        '60000000 AND abs(CAST($28::BIGINT AS BIGINT) - (extract(epoch FROM clock_timestamp()) * '
        '1000000)::bigint) <= 60000000) ON CONFLICT (namespace, key) DO UPDATE SET blob = excluded.blob, '
        'inline = excluded.inline, size = excluded.size, raw_size = excluded.raw_size, digest = '
        'excluded.digest, codec = excluded.codec, created_at = excluded.created_at, expires_at = '
        'excluded.expires_at, compute_seconds = excluded.compute_seconds, function = excluded.function, '
        'prefix = excluded.prefix, args = excluded.args, components = excluded.components, value = '
        'excluded.value, fn = excluded.fn, alias = excluded.alias, link = excluded.link, outputs = '
        'excluded.outputs, tags = excluded.tags, provenance = excluded.provenance, key_id = excluded.key_id, '
        'mac = excluded.mac, replaced = cacheness.entries.blob, replaced_size = cacheness.entries.size WHERE '
        '(excluded.link IS NULL OR cacheness.entries.link IS NOT NULL) AND (CAST($26 AS BOOLEAN) OR '
        'cacheness.entries.created_at <= excluded.created_at) RETURNING cacheness.entries.namespace, '
        'cacheness.entries.key, cacheness.entries.replaced, cacheness.entries.blob, '
        'cacheness.entries.created_at, cacheness.entries.tags, cacheness.entries.prefix, '
        'cacheness.entries.size, cacheness.entries.replaced_size), new_tombstones AS (INSERT INTO '
        'cacheness.tombstones (blob, at) SELECT put.replaced AS replaced, (extract(epoch FROM '
        'clock_timestamp()) * 1000000)::bigint FROM put WHERE put.replaced IS NOT NULL AND put.replaced IS '
        'DISTINCT FROM put.blob ON CONFLICT DO NOTHING), used AS (INSERT INTO cacheness.uses (namespace, key, '
        'accessed_at, hits) SELECT put.namespace AS namespace, put.key AS key, put.created_at AS created_at, '
        '0 FROM put ON CONFLICT (namespace, key) DO UPDATE SET accessed_at = excluded.accessed_at, hits = '
        "excluded.hits), named AS (SELECT put.namespace AS namespace, put.key AS key, 'tag' AS kind, "
        "left(each, 500) AS tag FROM put, unnest(string_to_array(btrim(put.tags, E'\\n'), E'\\n')) AS each "
        "UNION ALL SELECT put.namespace AS namespace, put.key AS key, 'prefix', left(put.prefix, 500) AS "
        "left_1 FROM put WHERE put.prefix != ''), tagged AS (INSERT INTO cacheness.tags (namespace, key, "
        'kind, tag) SELECT named.namespace AS namespace, named.key AS key, named.kind AS kind, named.tag AS '
        'tag FROM named ON CONFLICT DO NOTHING), stale AS (DELETE FROM cacheness.tags USING put WHERE '
        'cacheness.tags.namespace = put.namespace AND cacheness.tags.key = put.key AND NOT (EXISTS (SELECT * '
        'FROM named WHERE named.namespace = cacheness.tags.namespace AND named.key = cacheness.tags.key AND '
        'cacheness.tags.kind = named.kind AND cacheness.tags.tag = named.tag))), counted AS (INSERT INTO '
        'cacheness.totals (namespace, slot, entries, bytes) SELECT put.namespace AS namespace, '
        '(pg_backend_pid() & 63), CAST(sum(CAST(put.replaced_size IS NULL AS INTEGER)) AS BIGINT) AS sum_1, '
        'CAST(sum(CASE WHEN (put.size BETWEEN 0 AND 1125899906842624) THEN put.size ELSE 0 END - '
        'coalesce(CASE WHEN (put.replaced_size BETWEEN 0 AND 1125899906842624) THEN put.replaced_size ELSE 0 '
        'END, 0)) AS BIGINT) AS sum_2 FROM put GROUP BY put.namespace ORDER BY put.namespace ON CONFLICT '
        '(namespace, slot) DO UPDATE SET entries = (cacheness.totals.entries + excluded.entries), bytes = '
        '(cacheness.totals.bytes + excluded.bytes)) SELECT CASE WHEN (put.replaced IS NOT NULL AND '
        'put.replaced IS DISTINCT FROM put.blob) THEN put.replaced END AS anon_25, put.namespace, put.key '
        'FROM writer LEFT OUTER JOIN put ON true',
        {},
        ('namespace', 'key', 'blob', 'inline', 'size', 'raw_size', 'digest', 'codec', 'created_at',
        'expires_at', 'compute_seconds', 'function', 'prefix', 'args', 'components', 'value', 'fn', 'alias',
        'link', 'outputs', 'tags', 'provenance', 'key_id', 'mac', 'session', 'fresh', 'earliest', 'latest')
    ),
    'publish_many': Statement(
        'WITH writer AS (SELECT cacheness.sessions.id AS id FROM cacheness.sessions WHERE '
        "cacheness.sessions.id = $25::VARCHAR AND cacheness.sessions.state = 'live' FOR SHARE), put AS "
        '(INSERT INTO cacheness.entries (namespace, key, blob, inline, size, raw_size, digest, codec, '
        'created_at, expires_at, compute_seconds, function, prefix, args, components, value, fn, alias, link, '
        'outputs, tags, provenance, key_id, mac) SELECT anon_1.namespace AS namespace, anon_1.key AS key, '
        'anon_1.blob AS blob, anon_1.inline AS inline, anon_1.size AS size, anon_1.raw_size AS raw_size, '
        'anon_1.digest AS digest, anon_1.codec AS codec, anon_1.created_at AS created_at, anon_1.expires_at '
        'AS expires_at, anon_1.compute_seconds AS compute_seconds, anon_1.function AS function, anon_1.prefix '
        'AS prefix, anon_1.args AS args, anon_1.components AS components, anon_1.value AS value, anon_1.fn AS '
        'fn, anon_1.alias AS alias, anon_1.link AS link, anon_1.outputs AS outputs, anon_1.tags AS tags, '
        'anon_1.provenance AS provenance, anon_1.key_id AS key_id, anon_1.mac AS mac FROM '
        'unnest(CAST($1::TEXT[] AS TEXT[]), CAST($2::BYTEA[] AS BYTEA[]), CAST($3::TEXT[] AS TEXT[]), '
        'CAST($4::BYTEA[] AS BYTEA[]), CAST($5::BIGINT[] AS BIGINT[]), CAST($6::BIGINT[] AS BIGINT[]), '
        'CAST($7::BYTEA[] AS BYTEA[]), CAST($8::TEXT[] AS TEXT[]), CAST($9::BIGINT[] AS BIGINT[]), '
        'CAST($10::BIGINT[] AS BIGINT[]), CAST($11::DOUBLE PRECISION[] AS DOUBLE PRECISION[]), '
        'CAST($12::TEXT[] AS TEXT[]), CAST($13::TEXT[] AS TEXT[]), CAST($14::BYTEA[] AS BYTEA[]), '
        'CAST($15::TEXT[] AS TEXT[]), CAST($16::BYTEA[] AS BYTEA[]), CAST($17::BYTEA[] AS BYTEA[]), '
        'CAST($18::BYTEA[] AS BYTEA[]), CAST($19::BYTEA[] AS BYTEA[]), CAST($20::TEXT[] AS TEXT[]), '
        'CAST($21::TEXT[] AS TEXT[]), CAST($22::TEXT[] AS TEXT[]), CAST($23::TEXT[] AS TEXT[]), '
        'CAST($24::BYTEA[] AS BYTEA[])) WITH ORDINALITY AS anon_1(namespace, key, blob, inline, size, '
        'raw_size, digest, codec, created_at, expires_at, compute_seconds, function, prefix, args, '
        'components, value, fn, alias, link, outputs, tags, provenance, key_id, mac, place) WHERE EXISTS '
        '(SELECT * FROM writer WHERE NOT CAST($26 AS BOOLEAN) OR abs(CAST($27::BIGINT AS BIGINT) - '
        '(extract(epoch FROM clock_timestamp()) * 1000000)::bigint) <= 60000000 AND abs(CAST($28::BIGINT AS '
        'BIGINT) - (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) <= 60000000) ORDER BY '
        'anon_1.place ON CONFLICT (namespace, key) DO UPDATE SET blob = excluded.blob, inline = '
        'excluded.inline, size = excluded.size, raw_size = excluded.raw_size, digest = excluded.digest, codec '
        '= excluded.codec, created_at = excluded.created_at, expires_at = excluded.expires_at, '
        'compute_seconds = excluded.compute_seconds, function = excluded.function, prefix = excluded.prefix, '
        'args = excluded.args, components = excluded.components, value = excluded.value, fn = excluded.fn, '
        'alias = excluded.alias, link = excluded.link, outputs = excluded.outputs, tags = excluded.tags, '
        'provenance = excluded.provenance, key_id = excluded.key_id, mac = excluded.mac, replaced = '
        'cacheness.entries.blob, replaced_size = cacheness.entries.size WHERE (excluded.link IS NULL OR '
        'cacheness.entries.link IS NOT NULL) AND (CAST($26 AS BOOLEAN) OR cacheness.entries.created_at <= '
        'excluded.created_at) RETURNING cacheness.entries.namespace, cacheness.entries.key, '
        'cacheness.entries.replaced, cacheness.entries.blob, cacheness.entries.created_at, '
        'cacheness.entries.tags, cacheness.entries.prefix, cacheness.entries.size, '
        'cacheness.entries.replaced_size), new_tombstones AS (INSERT INTO cacheness.tombstones (blob, at) '
        'SELECT put.replaced AS replaced, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM put '
        'WHERE put.replaced IS NOT NULL AND put.replaced IS DISTINCT FROM put.blob ON CONFLICT DO NOTHING), '
        'used AS (INSERT INTO cacheness.uses (namespace, key, accessed_at, hits) SELECT put.namespace AS '
        'namespace, put.key AS key, put.created_at AS created_at, 0 FROM put ON CONFLICT (namespace, key) DO '
        'UPDATE SET accessed_at = excluded.accessed_at, hits = excluded.hits), counted AS (INSERT INTO '
        'cacheness.totals (namespace, slot, entries, bytes) SELECT put.namespace AS namespace, '
        '(pg_backend_pid() & 63), CAST(sum(CAST(put.replaced_size IS NULL AS INTEGER)) AS BIGINT) AS sum_1, '
        'CAST(sum(CASE WHEN (put.size BETWEEN 0 AND 1125899906842624) THEN put.size ELSE 0 END - '
        'coalesce(CASE WHEN (put.replaced_size BETWEEN 0 AND 1125899906842624) THEN put.replaced_size ELSE 0 '
        'END, 0)) AS BIGINT) AS sum_2 FROM put GROUP BY put.namespace ORDER BY put.namespace ON CONFLICT '
        '(namespace, slot) DO UPDATE SET entries = (cacheness.totals.entries + excluded.entries), bytes = '
        '(cacheness.totals.bytes + excluded.bytes)) SELECT CASE WHEN (put.replaced IS NOT NULL AND '
        'put.replaced IS DISTINCT FROM put.blob) THEN put.replaced END AS anon_2, put.namespace, put.key FROM '
        'writer LEFT OUTER JOIN put ON true',
        {},
        ('namespace', 'key', 'blob', 'inline', 'size', 'raw_size', 'digest', 'codec', 'created_at',
        'expires_at', 'compute_seconds', 'function', 'prefix', 'args', 'components', 'value', 'fn', 'alias',
        'link', 'outputs', 'tags', 'provenance', 'key_id', 'mac', 'session', 'fresh', 'earliest', 'latest')
    ),
    'publish_many_tagged': Statement(
        'WITH writer AS (SELECT cacheness.sessions.id AS id FROM cacheness.sessions WHERE '
        "cacheness.sessions.id = $25::VARCHAR AND cacheness.sessions.state = 'live' FOR SHARE), put AS "
        '(INSERT INTO cacheness.entries (namespace, key, blob, inline, size, raw_size, digest, codec, '
        'created_at, expires_at, compute_seconds, function, prefix, args, components, value, fn, alias, link, '
        'outputs, tags, provenance, key_id, mac) SELECT anon_1.namespace AS namespace, anon_1.key AS key, '
        'anon_1.blob AS blob, anon_1.inline AS inline, anon_1.size AS size, anon_1.raw_size AS raw_size, '
        'anon_1.digest AS digest, anon_1.codec AS codec, anon_1.created_at AS created_at, anon_1.expires_at '
        'AS expires_at, anon_1.compute_seconds AS compute_seconds, anon_1.function AS function, anon_1.prefix '
        'AS prefix, anon_1.args AS args, anon_1.components AS components, anon_1.value AS value, anon_1.fn AS '
        'fn, anon_1.alias AS alias, anon_1.link AS link, anon_1.outputs AS outputs, anon_1.tags AS tags, '
        'anon_1.provenance AS provenance, anon_1.key_id AS key_id, anon_1.mac AS mac FROM '
        'unnest(CAST($1::TEXT[] AS TEXT[]), CAST($2::BYTEA[] AS BYTEA[]), CAST($3::TEXT[] AS TEXT[]), '
        'CAST($4::BYTEA[] AS BYTEA[]), CAST($5::BIGINT[] AS BIGINT[]), CAST($6::BIGINT[] AS BIGINT[]), '
        'CAST($7::BYTEA[] AS BYTEA[]), CAST($8::TEXT[] AS TEXT[]), CAST($9::BIGINT[] AS BIGINT[]), '
        'CAST($10::BIGINT[] AS BIGINT[]), CAST($11::DOUBLE PRECISION[] AS DOUBLE PRECISION[]), '
        'CAST($12::TEXT[] AS TEXT[]), CAST($13::TEXT[] AS TEXT[]), CAST($14::BYTEA[] AS BYTEA[]), '
        'CAST($15::TEXT[] AS TEXT[]), CAST($16::BYTEA[] AS BYTEA[]), CAST($17::BYTEA[] AS BYTEA[]), '
        'CAST($18::BYTEA[] AS BYTEA[]), CAST($19::BYTEA[] AS BYTEA[]), CAST($20::TEXT[] AS TEXT[]), '
        'CAST($21::TEXT[] AS TEXT[]), CAST($22::TEXT[] AS TEXT[]), CAST($23::TEXT[] AS TEXT[]), '
        'CAST($24::BYTEA[] AS BYTEA[])) WITH ORDINALITY AS anon_1(namespace, key, blob, inline, size, '
        'raw_size, digest, codec, created_at, expires_at, compute_seconds, function, prefix, args, '
        'components, value, fn, alias, link, outputs, tags, provenance, key_id, mac, place) WHERE EXISTS '
        '(SELECT * FROM writer WHERE NOT CAST($26 AS BOOLEAN) OR abs(CAST($27::BIGINT AS BIGINT) - '
        '(extract(epoch FROM clock_timestamp()) * 1000000)::bigint) <= 60000000 AND abs(CAST($28::BIGINT AS '
        'BIGINT) - (extract(epoch FROM clock_timestamp()) * 1000000)::bigint) <= 60000000) ORDER BY '
        'anon_1.place ON CONFLICT (namespace, key) DO UPDATE SET blob = excluded.blob, inline = '
        'excluded.inline, size = excluded.size, raw_size = excluded.raw_size, digest = excluded.digest, codec '
        '= excluded.codec, created_at = excluded.created_at, expires_at = excluded.expires_at, '
        'compute_seconds = excluded.compute_seconds, function = excluded.function, prefix = excluded.prefix, '
        'args = excluded.args, components = excluded.components, value = excluded.value, fn = excluded.fn, '
        'alias = excluded.alias, link = excluded.link, outputs = excluded.outputs, tags = excluded.tags, '
        'provenance = excluded.provenance, key_id = excluded.key_id, mac = excluded.mac, replaced = '
        'cacheness.entries.blob, replaced_size = cacheness.entries.size WHERE (excluded.link IS NULL OR '
        'cacheness.entries.link IS NOT NULL) AND (CAST($26 AS BOOLEAN) OR cacheness.entries.created_at <= '
        'excluded.created_at) RETURNING cacheness.entries.namespace, cacheness.entries.key, '
        'cacheness.entries.replaced, cacheness.entries.blob, cacheness.entries.created_at, '
        'cacheness.entries.tags, cacheness.entries.prefix, cacheness.entries.size, '
        'cacheness.entries.replaced_size), new_tombstones AS (INSERT INTO cacheness.tombstones (blob, at) '
        'SELECT put.replaced AS replaced, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM put '
        'WHERE put.replaced IS NOT NULL AND put.replaced IS DISTINCT FROM put.blob ON CONFLICT DO NOTHING), '
        'used AS (INSERT INTO cacheness.uses (namespace, key, accessed_at, hits) SELECT put.namespace AS '
        'namespace, put.key AS key, put.created_at AS created_at, 0 FROM put ON CONFLICT (namespace, key) DO '
        'UPDATE SET accessed_at = excluded.accessed_at, hits = excluded.hits), named AS (SELECT put.namespace '
        "AS namespace, put.key AS key, 'tag' AS kind, left(each, 500) AS tag FROM put, "
        "unnest(string_to_array(btrim(put.tags, E'\\n'), E'\\n')) AS each UNION ALL SELECT put.namespace AS "
        "namespace, put.key AS key, 'prefix', left(put.prefix, 500) AS left_1 FROM put WHERE put.prefix != "
        "''), tagged AS (INSERT INTO cacheness.tags (namespace, key, kind, tag) SELECT named.namespace AS "
        'namespace, named.key AS key, named.kind AS kind, named.tag AS tag FROM named ON CONFLICT DO '
        'NOTHING), stale AS (DELETE FROM cacheness.tags USING put WHERE cacheness.tags.namespace = '
        'put.namespace AND cacheness.tags.key = put.key AND NOT (EXISTS (SELECT * FROM named WHERE '
        'named.namespace = cacheness.tags.namespace AND named.key = cacheness.tags.key AND '
        'cacheness.tags.kind = named.kind AND cacheness.tags.tag = named.tag))), counted AS (INSERT INTO '
        'cacheness.totals (namespace, slot, entries, bytes) SELECT put.namespace AS namespace, '
        '(pg_backend_pid() & 63), CAST(sum(CAST(put.replaced_size IS NULL AS INTEGER)) AS BIGINT) AS sum_1, '
        'CAST(sum(CASE WHEN (put.size BETWEEN 0 AND 1125899906842624) THEN put.size ELSE 0 END - '
        'coalesce(CASE WHEN (put.replaced_size BETWEEN 0 AND 1125899906842624) THEN put.replaced_size ELSE 0 '
        'END, 0)) AS BIGINT) AS sum_2 FROM put GROUP BY put.namespace ORDER BY put.namespace ON CONFLICT '
        '(namespace, slot) DO UPDATE SET entries = (cacheness.totals.entries + excluded.entries), bytes = '
        '(cacheness.totals.bytes + excluded.bytes)) SELECT CASE WHEN (put.replaced IS NOT NULL AND '
        'put.replaced IS DISTINCT FROM put.blob) THEN put.replaced END AS anon_2, put.namespace, put.key FROM '
        'writer LEFT OUTER JOIN put ON true',
        {},
        ('namespace', 'key', 'blob', 'inline', 'size', 'raw_size', 'digest', 'codec', 'created_at',
        'expires_at', 'compute_seconds', 'function', 'prefix', 'args', 'components', 'value', 'fn', 'alias',
        'link', 'outputs', 'tags', 'provenance', 'key_id', 'mac', 'session', 'fresh', 'earliest', 'latest')
    ),
    'begin_session': Statement(
        "WITH setting AS (SELECT set_config('synchronous_commit', coalesce(CAST($9 AS TEXT), "
        "current_setting('synchronous_commit')), true) AS how), begun AS (INSERT INTO cacheness.sessions (id, "
        'host, boot_id, pid_ns, pid, pid_start, state, fenced_at) SELECT CAST($1::VARCHAR AS TEXT) AS anon_2, '
        'CAST($2::VARCHAR AS TEXT) AS anon_3, CAST($3::VARCHAR AS TEXT) AS anon_4, CAST($4::VARCHAR AS TEXT) '
        'AS anon_5, CAST($5::BIGINT AS BIGINT) AS anon_6, CAST($6::VARCHAR AS TEXT) AS anon_7, '
        'CAST($7::VARCHAR AS TEXT) AS anon_8, CAST($8::BIGINT AS BIGINT) AS anon_9 FROM setting RETURNING '
        'cacheness.sessions.id) INSERT INTO cacheness.leases (session, until) SELECT begun.id, (extract(epoch '
        'FROM clock_timestamp()) * 1000000)::bigint + 300000000 AS anon_1 FROM begun',
        {},
        ('id', 'host', 'boot_id', 'pid_ns', 'pid', 'pid_start', 'state', 'fenced_at', 'commit')
    ),
    'renew': Statement(
        'UPDATE cacheness.leases SET until=((extract(epoch FROM clock_timestamp()) * 1000000)::bigint + '
        '300000000) WHERE cacheness.leases.session = $1::VARCHAR AND (EXISTS (SELECT * FROM '
        'cacheness.sessions WHERE cacheness.sessions.id = cacheness.leases.session AND '
        "cacheness.sessions.state = 'live'))",
        {},
        ('its',)
    ),
    'delete_session_leases': Statement(
        'DELETE FROM cacheness.leases WHERE NOT (EXISTS (SELECT * FROM cacheness.sessions WHERE '
        'cacheness.sessions.id = cacheness.leases.session))',
        {},
        ()
    ),
    'scan by row: ': Statement(
        'SELECT cacheness.entries.namespace, cacheness.entries.key, cacheness.entries.blob, '
        'cacheness.entries.inline, cacheness.entries.size, cacheness.entries.raw_size, '
        'cacheness.entries.digest, cacheness.entries.codec, cacheness.entries.created_at, '
        'cacheness.entries.expires_at, cacheness.entries.compute_seconds, cacheness.entries.function, '
        'cacheness.entries.prefix, cacheness.entries.args, cacheness.entries.components, '
        'cacheness.entries.value, cacheness.entries.fn, cacheness.entries.alias, cacheness.entries.link, '
        'cacheness.entries.outputs, cacheness.entries.tags, cacheness.entries.provenance, '
        'cacheness.entries.key_id, cacheness.entries.mac FROM cacheness.entries WHERE '
        'cacheness.entries.namespace = $1::VARCHAR AND cacheness.entries.key > $2 ORDER BY '
        'cacheness.entries.key LIMIT $3::INTEGER',
        {},
        ('namespace', 'after', 'limit')
    ),
    'newest by row: ': Statement(
        'SELECT cacheness.entries.namespace, cacheness.entries.key, cacheness.entries.blob, '
        'cacheness.entries.inline, cacheness.entries.size, cacheness.entries.raw_size, '
        'cacheness.entries.digest, cacheness.entries.codec, cacheness.entries.created_at, '
        'cacheness.entries.expires_at, cacheness.entries.compute_seconds, cacheness.entries.function, '
        'cacheness.entries.prefix, cacheness.entries.args, cacheness.entries.components, '
        'cacheness.entries.value, cacheness.entries.fn, cacheness.entries.alias, cacheness.entries.link, '
        'cacheness.entries.outputs, cacheness.entries.tags, cacheness.entries.provenance, '
        'cacheness.entries.key_id, cacheness.entries.mac FROM cacheness.entries WHERE '
        'cacheness.entries.namespace = $1::VARCHAR AND (cacheness.entries.created_at, cacheness.entries.key) '
        '< ($2::BIGINT, $3) ORDER BY cacheness.entries.created_at DESC, cacheness.entries.key DESC LIMIT '
        '$4::INTEGER',
        {},
        ('namespace', 'at', 'before', 'limit')
    ),
    'newest by row: 1 functions': Statement(
        'SELECT cacheness.entries.namespace, cacheness.entries.key, cacheness.entries.blob, '
        'cacheness.entries.inline, cacheness.entries.size, cacheness.entries.raw_size, '
        'cacheness.entries.digest, cacheness.entries.codec, cacheness.entries.created_at, '
        'cacheness.entries.expires_at, cacheness.entries.compute_seconds, cacheness.entries.function, '
        'cacheness.entries.prefix, cacheness.entries.args, cacheness.entries.components, '
        'cacheness.entries.value, cacheness.entries.fn, cacheness.entries.alias, cacheness.entries.link, '
        'cacheness.entries.outputs, cacheness.entries.tags, cacheness.entries.provenance, '
        'cacheness.entries.key_id, cacheness.entries.mac FROM cacheness.entries WHERE '
        'cacheness.entries.namespace = $1::VARCHAR AND (cacheness.entries.created_at, cacheness.entries.key) '
        '< ($2::BIGINT, $3) AND cacheness.entries.function IN ($4::VARCHAR) ORDER BY '
        'cacheness.entries.created_at DESC, cacheness.entries.key DESC LIMIT $5::INTEGER',
        {},
        ('namespace', 'at', 'before', 'function_0', 'limit')
    ),
    'lead by row: expired': Statement(
        'SELECT cacheness.entries.expires_at, cacheness.entries.key FROM cacheness.entries WHERE '
        'cacheness.entries.namespace = $1::VARCHAR AND (cacheness.entries.expires_at, cacheness.entries.key) '
        '> ($2::BIGINT, $3) AND cacheness.entries.expires_at <= (extract(epoch FROM clock_timestamp()) * '
        '1000000)::bigint AND length(cacheness.entries.key) = 32 ORDER BY cacheness.entries.expires_at, '
        'cacheness.entries.key LIMIT $4::INTEGER',
        {},
        ('namespace', 'at', 'after', 'limit')
    ),
    'doom by row: ': Statement(
        'SELECT cacheness.entries.key, CASE WHEN (cacheness.entries.size BETWEEN 0 AND 1125899906842624) THEN '
        'cacheness.entries.size ELSE 0 END AS anon_1, cacheness.entries.blob, cacheness.entries.alias FROM '
        'cacheness.entries WHERE cacheness.entries.namespace = $1::VARCHAR AND cacheness.entries.key > $2 AND '
        'length(cacheness.entries.key) = 32 ORDER BY cacheness.entries.key LIMIT $3::INTEGER FOR UPDATE OF '
        'entries',
        {},
        ('namespace', 'after', 'limit')
    ),
    'doom by row: keys': Statement(
        'SELECT cacheness.entries.key, CASE WHEN (cacheness.entries.size BETWEEN 0 AND 1125899906842624) THEN '
        'cacheness.entries.size ELSE 0 END AS anon_1, cacheness.entries.blob, cacheness.entries.alias FROM '
        'cacheness.entries WHERE cacheness.entries.namespace = $1::VARCHAR AND cacheness.entries.key = ANY '
        '($2::BYTEA[]) AND length(cacheness.entries.key) = 32 ORDER BY cacheness.entries.key LIMIT '
        '$3::INTEGER FOR UPDATE OF entries',
        {},
        ('namespace', 'keys', 'limit')
    ),
    'doom by row: keys expired': Statement(
        'SELECT cacheness.entries.key, CASE WHEN (cacheness.entries.size BETWEEN 0 AND 1125899906842624) THEN '
        'cacheness.entries.size ELSE 0 END AS anon_1, cacheness.entries.blob, cacheness.entries.alias FROM '
        'cacheness.entries WHERE cacheness.entries.namespace = $1::VARCHAR AND cacheness.entries.key = ANY '
        '($2::BYTEA[]) AND CASE WHEN (cacheness.entries.expires_at <= (extract(epoch FROM clock_timestamp()) '
        '* 1000000)::bigint) THEN 1 ELSE 0 END = 1 AND length(cacheness.entries.key) = 32 ORDER BY '
        'cacheness.entries.key LIMIT $3::INTEGER FOR UPDATE OF entries',
        {},
        ('namespace', 'keys', 'limit')
    ),
    'doom what is free by row: keys expired': Statement(
        'SELECT cacheness.entries.key, CASE WHEN (cacheness.entries.size BETWEEN 0 AND 1125899906842624) THEN '
        'cacheness.entries.size ELSE 0 END AS anon_1, cacheness.entries.blob, cacheness.entries.alias FROM '
        'cacheness.entries WHERE cacheness.entries.namespace = $1::VARCHAR AND cacheness.entries.key = ANY '
        '($2::BYTEA[]) AND CASE WHEN (cacheness.entries.expires_at <= (extract(epoch FROM clock_timestamp()) '
        '* 1000000)::bigint) THEN 1 ELSE 0 END = 1 AND length(cacheness.entries.key) = 32 ORDER BY '
        'cacheness.entries.key LIMIT $3::INTEGER FOR UPDATE OF entries SKIP LOCKED',
        {},
        ('namespace', 'keys', 'limit')
    ),
    'doom what is free by row: keys created_before': Statement(
        'SELECT cacheness.entries.key, CASE WHEN (cacheness.entries.size BETWEEN 0 AND 1125899906842624) THEN '
        'cacheness.entries.size ELSE 0 END AS anon_1, cacheness.entries.blob, cacheness.entries.alias FROM '
        'cacheness.entries WHERE cacheness.entries.namespace = $1::VARCHAR AND cacheness.entries.key = ANY '
        '($2::BYTEA[]) AND CASE WHEN (cacheness.entries.created_at < $3::BIGINT) THEN 1 ELSE 0 END = 1 AND '
        'length(cacheness.entries.key) = 32 ORDER BY cacheness.entries.key LIMIT $4::INTEGER FOR UPDATE OF '
        'entries SKIP LOCKED',
        {},
        ('namespace', 'keys', 'created_before', 'limit')
    ),
}

#: What makes a fresh database.
DEFINITIONS: Final = (
    'CREATE SCHEMA IF NOT EXISTS cacheness',
    'CREATE TABLE cacheness.activity ( namespace TEXT NOT NULL, span TEXT NOT NULL, hour BIGINT NOT NULL, '
    'function TEXT NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL, who TEXT NOT NULL, calls BIGINT '
    'NOT NULL, seconds_spent DOUBLE PRECISION NOT NULL, seconds_saved DOUBLE PRECISION NOT NULL, bytes '
    'BIGINT NOT NULL, PRIMARY KEY (namespace, span, hour, function, outcome, reason, who) )',
    "CREATE INDEX activity_apart ON cacheness.activity (namespace, hour) WHERE who != ''",
    'CREATE TABLE cacheness.checks ( namespace TEXT NOT NULL, shard INTEGER NOT NULL, at BIGINT NOT NULL, '
    'PRIMARY KEY (namespace, shard) )',
    'CREATE TABLE cacheness.compute_leases ( namespace TEXT NOT NULL, key BYTEA NOT NULL, token TEXT NOT '
    'NULL, until BIGINT NOT NULL, PRIMARY KEY (namespace, key) )',
    'CREATE TABLE cacheness.disputes ( namespace TEXT NOT NULL, key BYTEA NOT NULL, at BIGINT NOT NULL, '
    'stored BYTEA, computed BYTEA, function TEXT NOT NULL, detail TEXT NOT NULL, settled BIGINT, PRIMARY '
    'KEY (namespace, key) )',
    'CREATE TABLE cacheness.entries ( namespace TEXT NOT NULL, key BYTEA NOT NULL, blob TEXT COLLATE "C", '
    'inline BYTEA, size BIGINT NOT NULL, raw_size BIGINT NOT NULL, digest BYTEA NOT NULL, codec TEXT NOT '
    'NULL, created_at BIGINT NOT NULL, expires_at BIGINT, compute_seconds DOUBLE PRECISION, function TEXT '
    'NOT NULL, prefix TEXT NOT NULL, args BYTEA NOT NULL, components TEXT NOT NULL, value BYTEA, fn '
    'BYTEA, alias BYTEA, link BYTEA, outputs TEXT, tags TEXT NOT NULL, provenance TEXT NOT NULL, key_id '
    'TEXT NOT NULL, mac BYTEA NOT NULL, replaced TEXT, replaced_size BIGINT, PRIMARY KEY (namespace, key) '
    ')',
    'CREATE INDEX entries_by_age ON cacheness.entries (namespace, created_at)',
    'CREATE INDEX entries_by_alias ON cacheness.entries (namespace, alias) WHERE alias IS NOT NULL',
    'CREATE INDEX entries_by_expiry ON cacheness.entries (namespace, expires_at) WHERE expires_at IS NOT '
    'NULL',
    'CREATE INDEX entries_by_fn ON cacheness.entries (namespace, fn) WHERE fn IS NOT NULL',
    'CREATE INDEX entries_by_function ON cacheness.entries (namespace, function, created_at)',
    'CREATE INDEX entries_by_value ON cacheness.entries (namespace, value) WHERE value IS NOT NULL',
    'CREATE TABLE cacheness.equivalences ( namespace TEXT NOT NULL, "new" BYTEA NOT NULL, "old" BYTEA NOT '
    'NULL, store TEXT NOT NULL, parameters TEXT NOT NULL, evidence TEXT NOT NULL, created_at BIGINT NOT '
    'NULL, until BIGINT NOT NULL, by TEXT NOT NULL, key_id TEXT NOT NULL, mac BYTEA NOT NULL, PRIMARY KEY '
    '(namespace, "new", "old") )',
    'CREATE TABLE cacheness.functions ( namespace TEXT NOT NULL, digest BYTEA NOT NULL, name TEXT NOT '
    'NULL, module TEXT NOT NULL, components TEXT NOT NULL, first_seen BIGINT NOT NULL, last_seen BIGINT '
    'NOT NULL, PRIMARY KEY (namespace, digest) )',
    'CREATE INDEX functions_by_age ON cacheness.functions (namespace, last_seen)',
    'CREATE TABLE cacheness.leases ( session TEXT NOT NULL, until BIGINT NOT NULL, PRIMARY KEY (session) '
    ')',
    'CREATE TABLE cacheness.not_stored ( namespace TEXT NOT NULL, key BYTEA NOT NULL, reason TEXT NOT '
    'NULL, at BIGINT NOT NULL, PRIMARY KEY (namespace, key) )',
    'CREATE TABLE cacheness.quotas ( namespace TEXT NOT NULL, max_bytes BIGINT, max_entries BIGINT, '
    'policy TEXT NOT NULL, maintained_at BIGINT, PRIMARY KEY (namespace) )',
    'CREATE TABLE cacheness.schema_version ( version_num VARCHAR(32) NOT NULL, CONSTRAINT '
    'schema_version_pkc PRIMARY KEY (version_num) )',
    'CREATE TABLE cacheness.sessions ( id TEXT NOT NULL, host TEXT NOT NULL, boot_id TEXT NOT NULL, '
    'pid_ns TEXT NOT NULL, pid BIGINT NOT NULL, pid_start TEXT NOT NULL, state TEXT NOT NULL, fenced_at '
    'BIGINT, PRIMARY KEY (id) )',
    'CREATE TABLE cacheness.store ( id TEXT NOT NULL, epoch TEXT NOT NULL, min_reader INTEGER NOT NULL, '
    'PRIMARY KEY (id) )',
    'CREATE TABLE cacheness.tags ( namespace TEXT NOT NULL, key BYTEA NOT NULL, kind TEXT NOT NULL, tag '
    'TEXT NOT NULL, PRIMARY KEY (namespace, key, kind, tag) )',
    'CREATE INDEX tags_by_name ON cacheness.tags (namespace, kind, tag, key)',
    'CREATE TABLE cacheness.tombstones ( blob TEXT COLLATE "C" NOT NULL, at BIGINT NOT NULL, PRIMARY KEY '
    '(blob) )',
    'CREATE TABLE cacheness.totals ( namespace TEXT NOT NULL, slot INTEGER NOT NULL, entries BIGINT NOT '
    'NULL, bytes BIGINT NOT NULL, PRIMARY KEY (namespace, slot) )',
    'CREATE TABLE cacheness.uses ( namespace TEXT NOT NULL, key BYTEA NOT NULL, accessed_at BIGINT NOT '
    'NULL, hits BIGINT NOT NULL, PRIMARY KEY (namespace, key) )',
    'ALTER TABLE cacheness.uses SET (fillfactor = 80)',
)
