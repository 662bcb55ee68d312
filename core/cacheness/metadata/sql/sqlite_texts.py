"""The statements for SQLite that run every day. Written by `make docs`: change building.py and sqlite_building.py instead."""

from __future__ import annotations

from typing import Final

from cacheness.metadata.sql.statements import Statement

STATEMENTS: Final = {
    'identity': Statement(
        'SELECT store.id, store.epoch, store.min_reader, (SELECT schema_version.version_num FROM '
        'schema_version) AS anon_1 FROM store',
        {},
        ()
    ),
    'create_store': Statement(
        'INSERT INTO store (id, epoch, min_reader) VALUES (:id, :epoch, :min_reader)',
        {},
        ()
    ),
    'create_version': Statement(
        'INSERT INTO schema_version (version_num) VALUES (:version_num)',
        {},
        ()
    ),
    'begin_epoch': Statement(
        'UPDATE store SET epoch=substr(:new_epoch || :param_1 || store.epoch, :substr_1, :substr_2)',
        {'param_1': ',', 'substr_1': 1, 'substr_2': 500},
        ()
    ),
    'usage': Statement(
        'SELECT store.epoch, EXISTS (SELECT sessions.id FROM sessions) AS anon_1, EXISTS (SELECT * FROM '
        'entries WHERE entries.blob IS NOT NULL) AS anon_2 FROM store',
        {},
        ()
    ),
    'sync': Statement(
        'UPDATE store SET epoch=store.epoch',
        {},
        ()
    ),
    'find': Statement(
        'SELECT entries.namespace, entries."key", entries.blob, entries.inline, entries.size, '
        'entries.raw_size, entries.digest, entries.codec, entries.created_at, entries.expires_at, '
        'entries.compute_seconds, entries.function, entries.prefix, entries.args, entries.components, '
        'entries.value, entries.fn, entries.alias, entries.link, entries.outputs, entries.tags, '
        'entries.provenance, entries.key_id, entries.mac FROM entries WHERE entries.namespace = :namespace '
        'AND entries."key" = :key AND NOT (EXISTS (SELECT * FROM disputes WHERE disputes.namespace = '
        'entries.namespace AND disputes."key" = entries."key" AND disputes.at >= entries.created_at))',
        {},
        ()
    ),
    'find_many': Statement(
        'SELECT entries.namespace, entries."key", entries.blob, entries.inline, entries.size, '
        'entries.raw_size, entries.digest, entries.codec, entries.created_at, entries.expires_at, '
        'entries.compute_seconds, entries.function, entries.prefix, entries.args, entries.components, '
        'entries.value, entries.fn, entries.alias, entries.link, entries.outputs, entries.tags, '
        'entries.provenance, entries.key_id, entries.mac FROM entries WHERE entries.namespace = :namespace '
        'AND entries."key" IN (WITH RECURSIVE at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT i + '
        '1 FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) AS '
        'key FROM at) AND NOT (EXISTS (SELECT * FROM disputes WHERE disputes.namespace = entries.namespace '
        'AND disputes."key" = entries."key" AND disputes.at >= entries.created_at))',
        {'width': 32},
        ()
    ),
    'present': Statement(
        'SELECT entries."key", coalesce(target.size, entries.size) AS coalesce_1, coalesce(target.raw_size, '
        'entries.raw_size) AS coalesce_2, coalesce(target.compute_seconds, entries.compute_seconds) AS '
        'coalesce_3, coalesce(target.outputs, entries.outputs) AS coalesce_4, coalesce(target.created_at, '
        'entries.created_at) AS coalesce_5, entries.link FROM entries LEFT OUTER JOIN entries AS target ON '
        'target.namespace = entries.namespace AND target."key" = entries.link WHERE entries.namespace = '
        ':namespace AND entries."key" IN (WITH RECURSIVE at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL '
        'SELECT i + 1 FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT substr(:keys, 1 + i * :width, '
        ':width) AS key FROM at) AND (entries.expires_at IS NULL OR entries.expires_at > :now) AND NOT '
        '(EXISTS (SELECT * FROM disputes WHERE disputes.namespace = entries.namespace AND disputes."key" = '
        'entries."key" AND disputes.at >= entries.created_at)) AND (entries.link IS NULL OR target.alias = '
        'entries.alias AND target.link IS NULL AND (target.expires_at IS NULL OR target.expires_at > :now) '
        'AND NOT (EXISTS (SELECT * FROM disputes WHERE disputes.namespace = target.namespace AND '
        'disputes."key" = target."key" AND disputes.at >= target.created_at)))',
        {'width': 32},
        ()
    ),
    'by_alias': Statement(
        'SELECT entries.namespace, entries."key", entries.blob, entries.inline, entries.size, '
        'entries.raw_size, entries.digest, entries.codec, entries.created_at, entries.expires_at, '
        'entries.compute_seconds, entries.function, entries.prefix, entries.args, entries.components, '
        'entries.value, entries.fn, entries.alias, entries.link, entries.outputs, entries.tags, '
        'entries.provenance, entries.key_id, entries.mac FROM entries WHERE entries.namespace = :namespace '
        'AND entries.alias = :alias AND entries.link IS NULL AND NOT (EXISTS (SELECT * FROM disputes WHERE '
        'disputes.namespace = entries.namespace AND disputes."key" = entries."key" AND disputes.at >= '
        'entries.created_at)) LIMIT 9 OFFSET :param_1',
        {'param_1': 0},
        ()
    ),
    'links': Statement(
        'SELECT entries."key", CASE WHEN (entries.size BETWEEN 0 AND 1125899906842624) THEN entries.size ELSE '
        '0 END AS anon_1, entries.blob, entries.link FROM entries WHERE entries.namespace = :namespace AND '
        'entries.alias IN (WITH RECURSIVE at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT i + 1 '
        'FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) AS key '
        'FROM at) AND entries.link IS NOT NULL AND length(entries."key") = 32',
        {'width': 32},
        ()
    ),
    'named_codes': Statement(
        'SELECT given."key" FROM (WITH RECURSIVE at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT '
        'i + 1 FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) '
        'AS key FROM at) AS given WHERE EXISTS (SELECT * FROM entries WHERE entries.namespace = :namespace '
        'AND entries.fn = given."key")',
        {'width': 32},
        ()
    ),
    'keys_by_value': Statement(
        'SELECT entries.value, entries."key" FROM entries WHERE entries.namespace = :namespace AND '
        'entries.value IN (WITH RECURSIVE at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT i + 1 '
        'FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) AS key '
        'FROM at) AND length(entries."key") = 32 LIMIT 1000 OFFSET :param_1',
        {'width': 32, 'param_1': 0},
        ()
    ),
    'swap': Statement(
        'UPDATE entries SET expires_at=:new_expires_at, key_id=:new_key_id, mac=:new_mac WHERE '
        'entries.namespace = :namespace AND entries."key" = :key AND entries.blob IS :old_blob AND '
        'entries.digest IS :old_digest AND entries.created_at IS :old_created_at AND entries.expires_at IS '
        ':old_expires_at AND entries.key_id IS :old_key_id AND entries.mac IS :old_mac',
        {},
        ()
    ),
    'totals': Statement(
        'SELECT (SELECT CAST(coalesce(sum(totals.entries), 0) AS BIGINT) AS coalesce_1 FROM totals WHERE '
        'totals.namespace = :namespace) AS anon_1, (SELECT CAST(coalesce(sum(totals.bytes), 0) AS BIGINT) AS '
        'coalesce_2 FROM totals WHERE totals.namespace = :namespace) AS anon_2',
        {},
        ()
    ),
    'holdings': Statement(
        'SELECT kept.entries, kept.bytes, quotas.max_bytes, quotas.max_entries, quotas.policy, '
        'quotas.maintained_at FROM (SELECT CAST(coalesce(sum(totals.entries), 0) AS BIGINT) AS entries, '
        'CAST(coalesce(sum(totals.bytes), 0) AS BIGINT) AS bytes FROM totals WHERE totals.namespace = '
        ':namespace) AS kept LEFT OUTER JOIN quotas ON quotas.namespace = :namespace',
        {},
        ()
    ),
    'add_totals': Statement(
        'INSERT INTO totals (namespace, slot, entries, bytes) VALUES (:namespace, 0, :entries, :bytes) ON '
        'CONFLICT (namespace, slot) DO UPDATE SET entries = (totals.entries + excluded.entries), bytes = '
        '(totals.bytes + excluded.bytes)',
        {},
        ()
    ),
    'correct_totals': Statement(
        'INSERT INTO totals (namespace, slot, entries, bytes) VALUES (:namespace, 0, :entries, :bytes) ON '
        'CONFLICT (namespace, slot) DO UPDATE SET entries = (totals.entries + excluded.entries), bytes = '
        '(totals.bytes + excluded.bytes)',
        {},
        ()
    ),
    'recount': Statement(
        'SELECT (SELECT count(*) AS count_1 FROM entries WHERE entries.namespace = :namespace) - (SELECT '
        'CAST(coalesce(sum(totals.entries), 0) AS BIGINT) AS coalesce_1 FROM totals WHERE totals.namespace = '
        ':namespace) AS anon_1, (SELECT CAST(coalesce(sum(CASE WHEN (entries.size BETWEEN 0 AND '
        '1125899906842624) THEN entries.size ELSE 0 END), 0) AS BIGINT) AS coalesce_2 FROM entries WHERE '
        'entries.namespace = :namespace) - (SELECT CAST(coalesce(sum(totals.bytes), 0) AS BIGINT) AS '
        'coalesce_3 FROM totals WHERE totals.namespace = :namespace) AS anon_2',
        {},
        ()
    ),
    'set_quota': Statement(
        'INSERT INTO quotas (namespace, max_bytes, max_entries, policy) VALUES (:namespace, :max_bytes, '
        ':max_entries, :policy) ON CONFLICT (namespace) DO UPDATE SET max_bytes = excluded.max_bytes, '
        'max_entries = excluded.max_entries, policy = excluded.policy WHERE quotas.max_bytes IS NOT '
        'excluded.max_bytes OR quotas.max_entries IS NOT excluded.max_entries OR quotas.policy IS NOT '
        'excluded.policy',
        {},
        ()
    ),
    'note_maintenance': Statement(
        "INSERT INTO quotas (namespace, policy, maintained_at) VALUES (:namespace, 'lru', "
        "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)) ON CONFLICT (namespace) DO UPDATE SET "
        'maintained_at = excluded.maintained_at',
        {},
        ()
    ),
    'neighbours': Statement(
        'SELECT entries."key", CASE WHEN (entries.size BETWEEN 0 AND 1125899906842624) THEN entries.size ELSE '
        '0 END AS anon_1, entries.created_at, coalesce(entries.compute_seconds, :coalesce_2) AS coalesce_1, '
        'coalesce((SELECT uses.accessed_at FROM uses WHERE uses.namespace = entries.namespace AND uses."key" '
        '= entries."key"), entries.created_at) AS coalesce_3, coalesce((SELECT uses.hits FROM uses WHERE '
        'uses.namespace = entries.namespace AND uses."key" = entries."key"), 0) AS coalesce_4 FROM entries '
        'WHERE entries.namespace = :namespace AND entries."key" >= :key ORDER BY entries."key" LIMIT {limit} '
        'OFFSET :param_1',
        {'coalesce_2': 0.0, 'param_1': 0},
        ()
    ),
    'functions': Statement(
        'WITH RECURSIVE names(name) AS (SELECT min(entries.function) AS name FROM entries WHERE '
        'entries.namespace = :namespace UNION ALL SELECT (SELECT min(entries.function) AS min_1 FROM entries '
        'WHERE entries.namespace = :namespace AND entries.function > names.name) AS anon_1 FROM names WHERE '
        'names.name IS NOT NULL) SELECT names.name FROM names WHERE names.name IS NOT NULL',
        {},
        ()
    ),
    'delete': Statement(
        'DELETE FROM entries WHERE entries.namespace = :namespace AND entries."key" IN (WITH RECURSIVE at(i) '
        'AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT i + 1 FROM at WHERE (i + 2) * :width <= '
        'length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) AS key FROM at)',
        {'width': 32},
        ()
    ),
    'record_use': Statement(
        'UPDATE uses SET accessed_at=CASE WHEN (uses.accessed_at > :at) THEN uses.accessed_at ELSE :at END, '
        'hits=(uses.hits + :uses) WHERE uses.namespace = :namespace AND uses."key" = :key AND (EXISTS (SELECT '
        '* FROM entries WHERE uses.namespace = entries.namespace AND uses."key" = entries."key"))',
        {},
        ()
    ),
    'uses': Statement(
        'SELECT uses."key", uses.accessed_at, uses.hits FROM entries JOIN uses ON uses.namespace = '
        'entries.namespace AND uses."key" = entries."key" WHERE entries.namespace = :namespace AND '
        'entries."key" IN (WITH RECURSIVE at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT i + 1 '
        'FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) AS key '
        'FROM at)',
        {'width': 32},
        ()
    ),
    'delete_uses': Statement(
        'DELETE FROM uses WHERE uses.namespace = :namespace AND uses."key" IN (WITH RECURSIVE at(i) AS '
        '(SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT i + 1 FROM at WHERE (i + 2) * :width <= '
        'length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) AS key FROM at)',
        {'width': 32},
        ()
    ),
    'untag': Statement(
        'DELETE FROM tags WHERE tags.namespace = :namespace AND tags."key" IN (WITH RECURSIVE at(i) AS '
        '(SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT i + 1 FROM at WHERE (i + 2) * :width <= '
        'length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) AS key FROM at)',
        {'width': 32},
        ()
    ),
    'record_activity': Statement(
        'INSERT INTO activity (namespace, span, hour, function, outcome, reason, who, calls, seconds_spent, '
        'seconds_saved, bytes) VALUES (:namespace, :span, :hour, :function, :outcome, :reason, :who, :calls, '
        ':seconds_spent, :seconds_saved, :bytes) ON CONFLICT (namespace, span, hour, function, outcome, '
        'reason, who) DO UPDATE SET calls = excluded.calls, seconds_spent = excluded.seconds_spent, '
        'seconds_saved = excluded.seconds_saved, bytes = excluded.bytes',
        {},
        ()
    ),
    'add_activity': Statement(
        'INSERT INTO activity (namespace, span, hour, function, outcome, reason, who, calls, seconds_spent, '
        'seconds_saved, bytes) VALUES (:namespace, :span, :hour, :function, :outcome, :reason, :who, :calls, '
        ':seconds_spent, :seconds_saved, :bytes) ON CONFLICT (namespace, span, hour, function, outcome, '
        'reason, who) DO UPDATE SET calls = (activity.calls + excluded.calls), seconds_spent = '
        '(activity.seconds_spent + excluded.seconds_spent), seconds_saved = (activity.seconds_saved + '
        'excluded.seconds_saved), bytes = (activity.bytes + excluded.bytes)',
        {},
        ()
    ),
    'ended_activity': Statement(
        'SELECT activity.span, activity.hour, activity.function, activity.outcome, activity.reason, '
        'activity.who, activity.calls, activity.seconds_spent, activity.seconds_saved, activity.bytes FROM '
        "activity WHERE activity.namespace = :namespace AND activity.who != '' AND activity.hour < :before "
        'ORDER BY activity.hour LIMIT :limit OFFSET :param_1',
        {'param_1': 0},
        ()
    ),
    'old_activity': Statement(
        'SELECT activity.span, activity.hour, activity.function, activity.outcome, activity.reason, '
        'activity.who, activity.calls, activity.seconds_spent, activity.seconds_saved, activity.bytes FROM '
        "activity WHERE activity.namespace = :namespace AND activity.span = :span AND activity.who = '' AND "
        'activity.hour < :before ORDER BY activity.hour LIMIT :limit OFFSET :param_1',
        {'param_1': 0},
        ()
    ),
    'delete_activity': Statement(
        'DELETE FROM activity WHERE activity.namespace = :namespace AND activity.span = :span AND '
        'activity.hour = :hour AND activity.function = :function AND activity.outcome = :outcome AND '
        'activity.reason = :reason AND activity.who = :who',
        {},
        ()
    ),
    'all_activity': Statement(
        "SELECT 'all' AS span, 0 AS hour, found.function, found.outcome, found.reason, CAST(sum(found.calls) "
        'AS BIGINT) AS calls, CAST(sum(found.seconds_spent) AS DOUBLE) AS seconds_spent, '
        'CAST(sum(found.seconds_saved) AS DOUBLE) AS seconds_saved, CAST(sum(found.bytes) AS BIGINT) AS bytes '
        'FROM (SELECT activity.function AS function, activity.outcome AS outcome, activity.reason AS reason, '
        'activity.calls AS calls, activity.seconds_spent AS seconds_spent, activity.seconds_saved AS '
        'seconds_saved, activity.bytes AS bytes FROM activity WHERE activity.namespace = :namespace AND '
        "activity.span = 'all' UNION ALL SELECT activity.function AS function, activity.outcome AS outcome, "
        'activity.reason AS reason, activity.calls AS calls, activity.seconds_spent AS seconds_spent, '
        'activity.seconds_saved AS seconds_saved, activity.bytes AS bytes FROM activity WHERE '
        "activity.namespace = :namespace AND activity.who != '' AND activity.hour >= 0) AS found GROUP BY "
        'found.function, found.outcome, found.reason',
        {},
        ()
    ),
    'activity_since': Statement(
        "SELECT 'all' AS span, 0 AS hour, found.function, found.outcome, found.reason, CAST(sum(found.calls) "
        'AS BIGINT) AS calls, CAST(sum(found.seconds_spent) AS DOUBLE) AS seconds_spent, '
        'CAST(sum(found.seconds_saved) AS DOUBLE) AS seconds_saved, CAST(sum(found.bytes) AS BIGINT) AS bytes '
        'FROM (SELECT activity.function AS function, activity.outcome AS outcome, activity.reason AS reason, '
        'activity.calls AS calls, activity.seconds_spent AS seconds_spent, activity.seconds_saved AS '
        'seconds_saved, activity.bytes AS bytes FROM activity WHERE activity.namespace = :namespace AND '
        "activity.who != '' AND activity.hour >= :hours UNION ALL SELECT activity.function AS function, "
        'activity.outcome AS outcome, activity.reason AS reason, activity.calls AS calls, '
        'activity.seconds_spent AS seconds_spent, activity.seconds_saved AS seconds_saved, activity.bytes AS '
        "bytes FROM activity WHERE activity.namespace = :namespace AND activity.span = 'hour' AND "
        "activity.who = '' AND activity.hour >= :hours AND activity.hour < :days UNION ALL SELECT "
        'activity.function AS function, activity.outcome AS outcome, activity.reason AS reason, '
        'activity.calls AS calls, activity.seconds_spent AS seconds_spent, activity.seconds_saved AS '
        'seconds_saved, activity.bytes AS bytes FROM activity WHERE activity.namespace = :namespace AND '
        "activity.span = 'day' AND activity.hour >= :days AND activity.hour < :months UNION ALL SELECT "
        'activity.function AS function, activity.outcome AS outcome, activity.reason AS reason, '
        'activity.calls AS calls, activity.seconds_spent AS seconds_spent, activity.seconds_saved AS '
        'seconds_saved, activity.bytes AS bytes FROM activity WHERE activity.namespace = :namespace AND '
        "activity.span = 'month' AND activity.hour >= :months) AS found GROUP BY found.function, "
        'found.outcome, found.reason',
        {},
        ()
    ),
    'activity_by_hour': Statement(
        "SELECT found.span, found.hour, '' AS function, found.outcome, '' AS reason, CAST(sum(found.calls) AS "
        'BIGINT) AS calls, CAST(sum(found.seconds_spent) AS DOUBLE) AS seconds_spent, '
        'CAST(sum(found.seconds_saved) AS DOUBLE) AS seconds_saved, CAST(sum(found.bytes) AS BIGINT) AS bytes '
        "FROM (SELECT 'hour' AS span, activity.hour AS hour, activity.outcome AS outcome, activity.calls AS "
        'calls, activity.seconds_spent AS seconds_spent, activity.seconds_saved AS seconds_saved, '
        "activity.bytes AS bytes FROM activity WHERE activity.namespace = :namespace AND activity.who != '' "
        "AND activity.hour >= :hours UNION ALL SELECT 'hour' AS span, activity.hour AS hour, activity.outcome "
        'AS outcome, activity.calls AS calls, activity.seconds_spent AS seconds_spent, activity.seconds_saved '
        'AS seconds_saved, activity.bytes AS bytes FROM activity WHERE activity.namespace = :namespace AND '
        "activity.span = 'hours' AND activity.hour >= :hours UNION ALL SELECT 'day' AS span, activity.hour AS "
        'hour, activity.outcome AS outcome, activity.calls AS calls, activity.seconds_spent AS seconds_spent, '
        'activity.seconds_saved AS seconds_saved, activity.bytes AS bytes FROM activity WHERE '
        "activity.namespace = :namespace AND activity.span = 'days' AND activity.hour >= :days AND "
        "activity.hour < :hours UNION ALL SELECT 'month' AS span, activity.hour AS hour, activity.outcome AS "
        'outcome, activity.calls AS calls, activity.seconds_spent AS seconds_spent, activity.seconds_saved AS '
        'seconds_saved, activity.bytes AS bytes FROM activity WHERE activity.namespace = :namespace AND '
        "activity.span = 'months' AND activity.hour >= :months AND activity.hour < :days) AS found GROUP BY "
        'found.span, found.hour, found.outcome',
        {},
        ()
    ),
    'note_unstored': Statement(
        'INSERT INTO not_stored (namespace, "key", reason, at) VALUES (:namespace, :key, :reason, '
        'CAST((julianday(\'now\') - 2440587.5) * 86400000000 AS INTEGER)) ON CONFLICT (namespace, "key") DO '
        'UPDATE SET reason = excluded.reason, at = excluded.at WHERE not_stored.reason != excluded.reason OR '
        'not_stored.at < excluded.at - 86400000000',
        {},
        ()
    ),
    'unstored': Statement(
        'SELECT not_stored."key", not_stored.reason FROM not_stored WHERE not_stored.namespace = :namespace '
        'AND not_stored."key" IN (WITH RECURSIVE at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT '
        'i + 1 FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) '
        'AS key FROM at) AND not_stored.at >= :now - :age',
        {'width': 32},
        ()
    ),
    'delete_unstored': Statement(
        'DELETE FROM not_stored WHERE not_stored.namespace = :namespace AND not_stored.at < :now - :age',
        {},
        ()
    ),
    'note_function': Statement(
        'INSERT INTO functions (namespace, digest, name, module, components, first_seen, last_seen) VALUES '
        "(:namespace, :digest, :name, :module, :components, (CAST((julianday('now') - 2440587.5) * "
        "86400000000 AS INTEGER) - CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) % "
        "86400000000), (CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) - "
        "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) % 86400000000)) ON CONFLICT "
        '(namespace, digest) DO UPDATE SET name = excluded.name, module = excluded.module, components = '
        'excluded.components, last_seen = excluded.last_seen WHERE functions.last_seen < excluded.last_seen '
        'OR functions.name != excluded.name OR functions.module != excluded.module OR functions.components != '
        'excluded.components',
        {},
        ()
    ),
    'function_codes': Statement(
        'SELECT functions.digest, functions.name, functions.module, functions.components FROM functions WHERE '
        'functions.namespace = :namespace AND functions.digest IN (WITH RECURSIVE at(i) AS (SELECT 0 WHERE '
        'length(:keys) > 0 UNION ALL SELECT i + 1 FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT '
        'substr(:keys, 1 + i * :width, :width) AS key FROM at)',
        {'width': 32},
        ()
    ),
    'old_functions': Statement(
        'SELECT functions.digest, EXISTS (SELECT * FROM entries WHERE entries.namespace = functions.namespace '
        'AND entries.fn = functions.digest) AS anon_1 FROM functions WHERE functions.namespace = :namespace '
        'AND functions.last_seen < :now - :age ORDER BY functions.last_seen LIMIT :limit OFFSET :param_1',
        {'param_1': 0},
        ()
    ),
    'see_function': Statement(
        "UPDATE functions SET last_seen=(CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) - "
        "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) % 86400000000) WHERE "
        'functions.namespace = :namespace AND functions.digest = :digest',
        {},
        ()
    ),
    'delete_function': Statement(
        'DELETE FROM functions WHERE functions.namespace = :namespace AND functions.digest = :digest',
        {},
        ()
    ),
    'dispute': Statement(
        'INSERT INTO disputes (namespace, "key", at, stored, computed, function, detail) VALUES (:namespace, '
        ':key, :at, :stored, :computed, :function, :detail) ON CONFLICT (namespace, "key") DO UPDATE SET at = '
        'excluded.at, stored = excluded.stored, computed = excluded.computed, function = excluded.function, '
        'detail = excluded.detail',
        {},
        ()
    ),
    'count_disputes': Statement(
        'SELECT count(*) AS count_1 FROM disputes WHERE disputes.namespace = :namespace AND disputes.function '
        '= :function AND disputes.at > :now - 86400000000',
        {},
        ()
    ),
    'disputes': Statement(
        'SELECT disputes."key", disputes.at, disputes.stored, disputes.computed, disputes.function, '
        'disputes.detail FROM disputes JOIN entries ON disputes.namespace = entries.namespace AND '
        'disputes."key" = entries."key" AND disputes.at >= entries.created_at WHERE disputes.namespace = '
        ':namespace ORDER BY disputes."key"',
        {},
        ()
    ),
    'disputes_of': Statement(
        'SELECT disputes."key", disputes.at, disputes.stored, disputes.computed, disputes.function, '
        'disputes.detail FROM disputes JOIN entries ON disputes.namespace = entries.namespace AND '
        'disputes."key" = entries."key" AND disputes.at >= entries.created_at WHERE disputes.namespace = '
        ':namespace AND disputes."key" IN (WITH RECURSIVE at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION '
        'ALL SELECT i + 1 FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT substr(:keys, 1 + i * '
        ':width, :width) AS key FROM at) ORDER BY disputes."key"',
        {'width': 32},
        ()
    ),
    'settle': Statement(
        'DELETE FROM disputes WHERE disputes.namespace = :namespace AND disputes."key" IN (WITH RECURSIVE '
        'at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT i + 1 FROM at WHERE (i + 2) * :width <= '
        'length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) AS key FROM at)',
        {'width': 32},
        ()
    ),
    'delete_stale_disputes': Statement(
        'DELETE FROM disputes WHERE disputes.namespace = :namespace AND NOT (EXISTS (SELECT * FROM entries '
        'WHERE disputes.namespace = entries.namespace AND disputes."key" = entries."key" AND disputes.at >= '
        'entries.created_at))',
        {},
        ()
    ),
    'equivalences': Statement(
        'SELECT equivalences.namespace, equivalences.new, equivalences.old, equivalences.store, '
        'equivalences.parameters, equivalences.evidence, equivalences.created_at, equivalences.until, '
        'equivalences."by", equivalences.key_id, equivalences.mac FROM equivalences WHERE '
        'equivalences.namespace = :namespace ORDER BY equivalences.new, equivalences.old LIMIT 1000 OFFSET '
        ':param_1',
        {'param_1': 0},
        ()
    ),
    'find_equivalent': Statement(
        'SELECT entries.namespace, entries."key", entries.blob, entries.inline, entries.size, '
        'entries.raw_size, entries.digest, entries.codec, entries.created_at, entries.expires_at, '
        'entries.compute_seconds, entries.function, entries.prefix, entries.args, entries.components, '
        'entries.value, entries.fn, entries.alias, entries.link, entries.outputs, entries.tags, '
        'entries.provenance, entries.key_id, entries.mac, equivalences.namespace AS namespace_1, '
        'equivalences.new, equivalences.old, equivalences.store, equivalences.parameters, '
        'equivalences.evidence, equivalences.created_at AS created_at_1, equivalences.until, '
        'equivalences."by", equivalences.key_id AS key_id_1, equivalences.mac AS mac_1 FROM entries, '
        'equivalences WHERE entries.namespace = :namespace AND entries."key" IN (WITH RECURSIVE at(i) AS '
        '(SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT i + 1 FROM at WHERE (i + 2) * :width <= '
        'length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) AS key FROM at) AND NOT (EXISTS (SELECT '
        '* FROM disputes WHERE disputes.namespace = entries.namespace AND disputes."key" = entries."key" AND '
        'disputes.at >= entries.created_at)) AND equivalences.namespace = :namespace AND equivalences.new = '
        ':new',
        {'width': 32},
        ()
    ),
    'set_equivalence': Statement(
        'INSERT INTO equivalences (namespace, new, old, store, parameters, evidence, created_at, until, "by", '
        'key_id, mac) VALUES (:namespace, :new, :old, :store, :parameters, :evidence, :created_at, :until, '
        ':by, :key_id, :mac) ON CONFLICT (namespace, new, old) DO UPDATE SET store = excluded.store, '
        'parameters = excluded.parameters, evidence = excluded.evidence, created_at = excluded.created_at, '
        'until = excluded.until, "by" = excluded."by", key_id = excluded.key_id, mac = excluded.mac WHERE '
        'equivalences.until > 0',
        {},
        ()
    ),
    'delete_equivalence': Statement(
        'DELETE FROM equivalences WHERE equivalences.namespace = :namespace AND equivalences.new = :new AND '
        'equivalences.old = :old',
        {},
        ()
    ),
    'delete_old_equivalences': Statement(
        'DELETE FROM equivalences WHERE equivalences.namespace = :namespace AND equivalences.created_at < '
        ':before AND equivalences.until >= 0',
        {},
        ()
    ),
    'bury': Statement(
        "INSERT INTO tombstones (blob, at) VALUES (:blob, CAST((julianday('now') - 2440587.5) * 86400000000 "
        'AS INTEGER)) ON CONFLICT DO NOTHING',
        {},
        ()
    ),
    'tombstones': Statement(
        'SELECT tombstones.blob FROM tombstones WHERE tombstones.blob > :after AND tombstones.blob >= :first '
        'AND tombstones.blob < :last ORDER BY tombstones.blob LIMIT :limit OFFSET :param_1',
        {'param_1': 0},
        ()
    ),
    'clear_tombstone': Statement(
        'DELETE FROM tombstones WHERE tombstones.blob = :name',
        {},
        ()
    ),
    'open_session': Statement(
        'INSERT INTO sessions (id, host, boot_id, pid_ns, pid, pid_start, state, fenced_at) VALUES (:id, '
        ':host, :boot_id, :pid_ns, :pid, :pid_start, :state, :fenced_at)',
        {},
        ()
    ),
    'retire': Statement(
        "UPDATE sessions SET state=:new_state, fenced_at=CAST((julianday('now') - 2440587.5) * 86400000000 AS "
        "INTEGER) WHERE sessions.id = :session AND sessions.state = 'live'",
        {},
        ()
    ),
    'live_sessions': Statement(
        'SELECT sessions.id, sessions.host, sessions.boot_id, sessions.pid_ns, sessions.pid, '
        "sessions.pid_start, coalesce(leases.until < CAST((julianday('now') - 2440587.5) * 86400000000 AS "
        'INTEGER), 1) AS coalesce_1 FROM sessions LEFT OUTER JOIN leases ON leases.session = sessions.id '
        "WHERE sessions.state = 'live'",
        {},
        ()
    ),
    'retired_sessions': Statement(
        'SELECT sessions.id FROM sessions WHERE sessions.id IN (WITH RECURSIVE at(i) AS (SELECT 0 WHERE '
        'length(:keys) > 0 UNION ALL SELECT i + 1 FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT '
        "substr(:keys, 1 + i * :width, :width) AS key FROM at) AND sessions.state != 'live'",
        {'width': 16},
        ()
    ),
    'condemn': Statement(
        'INSERT INTO sessions (id, host, boot_id, pid_ns, pid, pid_start, state, fenced_at) VALUES (:id, '
        ":host, :boot_id, :pid_ns, :pid, :pid_start, :state, CAST((julianday('now') - 2440587.5) * "
        '86400000000 AS INTEGER)) ON CONFLICT DO NOTHING RETURNING id',
        {},
        ()
    ),
    'delete_sessions': Statement(
        "DELETE FROM sessions WHERE sessions.state != 'live' AND sessions.fenced_at < :now - :age",
        {},
        ()
    ),
    'check_times': Statement(
        'SELECT checks.shard, checks.at FROM checks WHERE checks.namespace = :namespace',
        {},
        ()
    ),
    'record_check': Statement(
        'INSERT INTO checks (namespace, shard, at) VALUES (:namespace, :shard, :at) ON CONFLICT (namespace, '
        'shard) DO UPDATE SET at = excluded.at',
        {},
        ()
    ),
    'take_compute_lease': Statement(
        'INSERT INTO compute_leases (namespace, "key", token, until) VALUES (:namespace, :key, :token, '
        "(CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) + :microseconds)) ON CONFLICT "
        '(namespace, "key") DO UPDATE SET token = excluded.token, until = excluded.until WHERE '
        "compute_leases.until < CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER) OR "
        'compute_leases.token = excluded.token',
        {},
        ()
    ),
    'end_compute_lease': Statement(
        'DELETE FROM compute_leases WHERE compute_leases.namespace = :namespace AND compute_leases."key" = '
        ':key AND compute_leases.token = :token',
        {},
        ()
    ),
    'compute_lease_holder': Statement(
        'SELECT compute_leases.token FROM compute_leases WHERE compute_leases.namespace = :namespace AND '
        'compute_leases."key" = :key AND compute_leases.until >= CAST((julianday(\'now\') - 2440587.5) * '
        '86400000000 AS INTEGER)',
        {},
        ()
    ),
    'session_lives': Statement(
        "SELECT sessions.id FROM sessions WHERE sessions.id = :session AND sessions.state = 'live'",
        {},
        ()
    ),
    'replaced_by': Statement(
        'SELECT entries."key", CASE WHEN (entries.size BETWEEN 0 AND 1125899906842624) THEN entries.size ELSE '
        '0 END AS anon_1, entries.blob, entries.tags, entries.prefix, entries.link IS NULL AS anon_2, '
        'entries.created_at FROM sessions LEFT OUTER JOIN entries ON entries.namespace = :namespace AND '
        'entries."key" = :key WHERE sessions.id = :session AND sessions.state = \'live\'',
        {},
        ()
    ),
    'replaced_by_many': Statement(
        'SELECT entries."key", CASE WHEN (entries.size BETWEEN 0 AND 1125899906842624) THEN entries.size ELSE '
        '0 END AS anon_1, entries.blob, entries.tags, entries.prefix, entries.link IS NULL AS anon_2, '
        'entries.created_at FROM sessions LEFT OUTER JOIN entries ON entries.namespace = :namespace AND '
        'entries."key" IN (WITH RECURSIVE at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT i + 1 '
        'FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) AS key '
        "FROM at) WHERE sessions.id = :session AND sessions.state = 'live'",
        {'width': 32},
        ()
    ),
    'put': Statement(
        'INSERT INTO entries (namespace, "key", blob, inline, size, raw_size, digest, codec, created_at, '
        'expires_at, compute_seconds, function, prefix, args, components, value, fn, alias, link, outputs, '
        'tags, provenance, key_id, mac) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '
        '?, ?, ?, ?) ON CONFLICT (namespace, "key") DO UPDATE SET blob = excluded.blob, inline = '
        'excluded.inline, size = excluded.size, raw_size = excluded.raw_size, digest = excluded.digest, codec '
        '= excluded.codec, created_at = excluded.created_at, expires_at = excluded.expires_at, '
        'compute_seconds = excluded.compute_seconds, function = excluded.function, prefix = excluded.prefix, '
        'args = excluded.args, components = excluded.components, value = excluded.value, fn = excluded.fn, '
        'alias = excluded.alias, link = excluded.link, outputs = excluded.outputs, tags = excluded.tags, '
        'provenance = excluded.provenance, key_id = excluded.key_id, mac = excluded.mac, replaced = '
        'entries.blob, replaced_size = entries.size',
        {},
        ('namespace', 'key', 'blob', 'inline', 'size', 'raw_size', 'digest', 'codec', 'created_at',
        'expires_at', 'compute_seconds', 'function', 'prefix', 'args', 'components', 'value', 'fn', 'alias',
        'link', 'outputs', 'tags', 'provenance', 'key_id', 'mac')
    ),
    'begin_use': Statement(
        'INSERT INTO uses (namespace, "key", accessed_at, hits) VALUES (?, ?, ?, 0) ON CONFLICT (namespace, '
        '"key") DO UPDATE SET accessed_at = excluded.accessed_at, hits = excluded.hits',
        {},
        ('namespace', 'key', 'created_at')
    ),
    'tag': Statement(
        'INSERT INTO tags (namespace, "key", kind, tag) VALUES (:namespace, :key, :kind, :tag) ON CONFLICT DO '
        'NOTHING',
        {},
        ()
    ),
    'scan by row: ': Statement(
        'SELECT entries.namespace, entries."key", entries.blob, entries.inline, entries.size, '
        'entries.raw_size, entries.digest, entries.codec, entries.created_at, entries.expires_at, '
        'entries.compute_seconds, entries.function, entries.prefix, entries.args, entries.components, '
        'entries.value, entries.fn, entries.alias, entries.link, entries.outputs, entries.tags, '
        'entries.provenance, entries.key_id, entries.mac FROM entries WHERE entries.namespace = :namespace '
        'AND entries."key" > :after ORDER BY entries."key" LIMIT :limit OFFSET :param_1',
        {'param_1': 0},
        ()
    ),
    'newest by row: ': Statement(
        'SELECT entries.namespace, entries."key", entries.blob, entries.inline, entries.size, '
        'entries.raw_size, entries.digest, entries.codec, entries.created_at, entries.expires_at, '
        'entries.compute_seconds, entries.function, entries.prefix, entries.args, entries.components, '
        'entries.value, entries.fn, entries.alias, entries.link, entries.outputs, entries.tags, '
        'entries.provenance, entries.key_id, entries.mac FROM entries WHERE entries.namespace = :namespace '
        'AND (entries.created_at, entries."key") < (:at, :before) ORDER BY entries.created_at DESC, '
        'entries."key" DESC LIMIT :limit OFFSET :param_1',
        {'param_1': 0},
        ()
    ),
    'newest by row: 1 functions': Statement(
        'SELECT entries.namespace, entries."key", entries.blob, entries.inline, entries.size, '
        'entries.raw_size, entries.digest, entries.codec, entries.created_at, entries.expires_at, '
        'entries.compute_seconds, entries.function, entries.prefix, entries.args, entries.components, '
        'entries.value, entries.fn, entries.alias, entries.link, entries.outputs, entries.tags, '
        'entries.provenance, entries.key_id, entries.mac FROM entries WHERE entries.namespace = :namespace '
        'AND (entries.created_at, entries."key") < (:at, :before) AND entries.function IN (:function_0) ORDER '
        'BY entries.created_at DESC, entries."key" DESC LIMIT :limit OFFSET :param_1',
        {'param_1': 0},
        ()
    ),
    'lead by row: expired': Statement(
        'SELECT entries.expires_at, entries."key" FROM entries WHERE entries.namespace = :namespace AND '
        '(entries.expires_at, entries."key") > (:at, :after) AND entries.expires_at <= :now AND '
        'length(entries."key") = 32 ORDER BY entries.expires_at, entries."key" LIMIT :limit OFFSET :param_1',
        {'param_1': 0},
        ()
    ),
    'doom by row: ': Statement(
        'SELECT entries."key", CASE WHEN (entries.size BETWEEN 0 AND 1125899906842624) THEN entries.size ELSE '
        '0 END AS anon_1, entries.blob, entries.alias FROM entries WHERE entries.namespace = :namespace AND '
        'entries."key" > :after AND length(entries."key") = 32 ORDER BY entries."key" LIMIT :limit OFFSET '
        ':param_1',
        {'param_1': 0},
        ()
    ),
    'doom by row: keys': Statement(
        'SELECT entries."key", CASE WHEN (entries.size BETWEEN 0 AND 1125899906842624) THEN entries.size ELSE '
        '0 END AS anon_1, entries.blob, entries.alias FROM entries WHERE entries.namespace = :namespace AND '
        'entries."key" IN (WITH RECURSIVE at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT i + 1 '
        'FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) AS key '
        'FROM at) AND length(entries."key") = 32 ORDER BY entries."key" LIMIT :limit OFFSET :param_1',
        {'width': 32, 'param_1': 0},
        ()
    ),
    'doom by row: keys expired': Statement(
        'SELECT entries."key", CASE WHEN (entries.size BETWEEN 0 AND 1125899906842624) THEN entries.size ELSE '
        '0 END AS anon_1, entries.blob, entries.alias FROM entries WHERE entries.namespace = :namespace AND '
        'entries."key" IN (WITH RECURSIVE at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT i + 1 '
        'FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) AS key '
        'FROM at) AND CASE WHEN (entries.expires_at <= :now) THEN 1 ELSE 0 END = 1 AND length(entries."key") '
        '= 32 ORDER BY entries."key" LIMIT :limit OFFSET :param_1',
        {'width': 32, 'param_1': 0},
        ()
    ),
    'doom what is free by row: keys expired': Statement(
        'SELECT entries."key", CASE WHEN (entries.size BETWEEN 0 AND 1125899906842624) THEN entries.size ELSE '
        '0 END AS anon_1, entries.blob, entries.alias FROM entries WHERE entries.namespace = :namespace AND '
        'entries."key" IN (WITH RECURSIVE at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT i + 1 '
        'FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) AS key '
        'FROM at) AND CASE WHEN (entries.expires_at <= :now) THEN 1 ELSE 0 END = 1 AND length(entries."key") '
        '= 32 ORDER BY entries."key" LIMIT :limit OFFSET :param_1',
        {'width': 32, 'param_1': 0},
        ()
    ),
    'doom what is free by row: keys created_before': Statement(
        'SELECT entries."key", CASE WHEN (entries.size BETWEEN 0 AND 1125899906842624) THEN entries.size ELSE '
        '0 END AS anon_1, entries.blob, entries.alias FROM entries WHERE entries.namespace = :namespace AND '
        'entries."key" IN (WITH RECURSIVE at(i) AS (SELECT 0 WHERE length(:keys) > 0 UNION ALL SELECT i + 1 '
        'FROM at WHERE (i + 2) * :width <= length(:keys)) SELECT substr(:keys, 1 + i * :width, :width) AS key '
        'FROM at) AND CASE WHEN (entries.created_at < :created_before) THEN 1 ELSE 0 END = 1 AND '
        'length(entries."key") = 32 ORDER BY entries."key" LIMIT :limit OFFSET :param_1',
        {'width': 32, 'param_1': 0},
        ()
    ),
}

#: What makes a fresh database.
DEFINITIONS: Final = (
    'CREATE TABLE activity ( namespace TEXT NOT NULL, span TEXT NOT NULL, hour BIGINT NOT NULL, function '
    'TEXT NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL, who TEXT NOT NULL, calls BIGINT NOT '
    'NULL, seconds_spent DOUBLE NOT NULL, seconds_saved DOUBLE NOT NULL, bytes BIGINT NOT NULL, PRIMARY '
    'KEY (namespace, span, hour, function, outcome, reason, who) ) WITHOUT ROWID',
    "CREATE INDEX activity_apart ON activity (namespace, hour) WHERE who != ''",
    'CREATE TABLE checks ( namespace TEXT NOT NULL, shard INTEGER NOT NULL, at BIGINT NOT NULL, PRIMARY '
    'KEY (namespace, shard) )',
    'CREATE TABLE compute_leases ( namespace TEXT NOT NULL, "key" BLOB NOT NULL, token TEXT NOT NULL, '
    'until BIGINT NOT NULL, PRIMARY KEY (namespace, "key") )',
    'CREATE TABLE disputes ( namespace TEXT NOT NULL, "key" BLOB NOT NULL, at BIGINT NOT NULL, stored '
    'BLOB, computed BLOB, function TEXT NOT NULL, detail TEXT NOT NULL, settled BIGINT, PRIMARY KEY '
    '(namespace, "key") )',
    'CREATE TABLE entries ( namespace TEXT NOT NULL, "key" BLOB NOT NULL, blob TEXT, inline BLOB, size '
    'BIGINT NOT NULL, raw_size BIGINT NOT NULL, digest BLOB NOT NULL, codec TEXT NOT NULL, created_at '
    'BIGINT NOT NULL, expires_at BIGINT, compute_seconds DOUBLE, function TEXT NOT NULL, prefix TEXT NOT '
    'NULL, args BLOB NOT NULL, components TEXT NOT NULL, value BLOB, fn BLOB, alias BLOB, link BLOB, '
    'outputs TEXT, tags TEXT NOT NULL, provenance TEXT NOT NULL, key_id TEXT NOT NULL, mac BLOB NOT NULL, '
    'replaced TEXT, replaced_size BIGINT, PRIMARY KEY (namespace, "key") )',
    'CREATE INDEX entries_by_age ON entries (namespace, created_at)',
    'CREATE INDEX entries_by_alias ON entries (namespace, alias) WHERE alias IS NOT NULL',
    'CREATE INDEX entries_by_expiry ON entries (namespace, expires_at) WHERE expires_at IS NOT NULL',
    'CREATE INDEX entries_by_fn ON entries (namespace, fn) WHERE fn IS NOT NULL',
    'CREATE INDEX entries_by_function ON entries (namespace, function, created_at)',
    'CREATE INDEX entries_by_value ON entries (namespace, value) WHERE value IS NOT NULL',
    'CREATE TABLE equivalences ( namespace TEXT NOT NULL, new BLOB NOT NULL, old BLOB NOT NULL, store '
    'TEXT NOT NULL, parameters TEXT NOT NULL, evidence TEXT NOT NULL, created_at BIGINT NOT NULL, until '
    'BIGINT NOT NULL, "by" TEXT NOT NULL, key_id TEXT NOT NULL, mac BLOB NOT NULL, PRIMARY KEY '
    '(namespace, new, old) )',
    'CREATE TABLE functions ( namespace TEXT NOT NULL, digest BLOB NOT NULL, name TEXT NOT NULL, module '
    'TEXT NOT NULL, components TEXT NOT NULL, first_seen BIGINT NOT NULL, last_seen BIGINT NOT NULL, '
    'PRIMARY KEY (namespace, digest) )',
    'CREATE INDEX functions_by_age ON functions (namespace, last_seen)',
    'CREATE TABLE leases ( session TEXT NOT NULL, until BIGINT NOT NULL, PRIMARY KEY (session) )',
    'CREATE TABLE not_stored ( namespace TEXT NOT NULL, "key" BLOB NOT NULL, reason TEXT NOT NULL, at '
    'BIGINT NOT NULL, PRIMARY KEY (namespace, "key") )',
    'CREATE TABLE quotas ( namespace TEXT NOT NULL, max_bytes BIGINT, max_entries BIGINT, policy TEXT NOT '
    'NULL, maintained_at BIGINT, PRIMARY KEY (namespace) )',
    'CREATE TABLE schema_version ( version_num VARCHAR(32) NOT NULL, CONSTRAINT schema_version_pkc '
    'PRIMARY KEY (version_num) )',
    'CREATE TABLE sessions ( id TEXT NOT NULL, host TEXT NOT NULL, boot_id TEXT NOT NULL, pid_ns TEXT NOT '
    'NULL, pid BIGINT NOT NULL, pid_start TEXT NOT NULL, state TEXT NOT NULL, fenced_at BIGINT, PRIMARY '
    'KEY (id) )',
    'CREATE TABLE store ( id TEXT NOT NULL, epoch TEXT NOT NULL, min_reader INTEGER NOT NULL, PRIMARY KEY '
    '(id) )',
    'CREATE TABLE tags ( namespace TEXT NOT NULL, "key" BLOB NOT NULL, kind TEXT NOT NULL, tag TEXT NOT '
    'NULL, PRIMARY KEY (namespace, "key", kind, tag) ) WITHOUT ROWID',
    'CREATE INDEX tags_by_name ON tags (namespace, kind, tag, "key")',
    'CREATE TABLE tombstones ( blob TEXT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (blob) )',
    'CREATE TABLE totals ( namespace TEXT NOT NULL, slot INTEGER NOT NULL, entries BIGINT NOT NULL, bytes '
    'BIGINT NOT NULL, PRIMARY KEY (namespace, slot) )',
    'CREATE TABLE uses ( namespace TEXT NOT NULL, "key" BLOB NOT NULL, accessed_at BIGINT NOT NULL, hits '
    'BIGINT NOT NULL, PRIMARY KEY (namespace, "key") ) WITHOUT ROWID',
)
