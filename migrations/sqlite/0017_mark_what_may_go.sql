-- A purge looks at what changed since it last looked, not at all there is.

-- When the log first changed since then; null: it has not.
ALTER TABLE exile_log ADD COLUMN changed INTEGER;
UPDATE exile_log SET changed = 0;
CREATE INDEX exile_log_changed ON exile_log (changed) WHERE changed IS NOT NULL;

-- 1: records of the run may be there.
ALTER TABLE exile_run ADD COLUMN kept INTEGER DEFAULT 1;
UPDATE exile_run SET kept = NULL
    WHERE last <= (SELECT purged FROM exile_log WHERE exile_log.key = exile_run.log);
CREATE INDEX exile_run_kept ON exile_run (log) WHERE kept = 1;

-- `key` stands for a bundle's address in the rows of runs, which are many to each.
CREATE TABLE exile_bundle (
    key INTEGER PRIMARY KEY,
    id  TEXT NOT NULL UNIQUE
) STRICT;
INSERT INTO exile_bundle (id) SELECT DISTINCT bundle FROM exile_run;
ALTER TABLE exile_run ADD COLUMN bundle_key INTEGER REFERENCES exile_bundle (key);
UPDATE exile_run SET bundle_key = (SELECT key FROM exile_bundle WHERE id = exile_run.bundle);
ALTER TABLE exile_run DROP COLUMN bundle;
ALTER TABLE exile_run RENAME COLUMN bundle_key TO bundle;
CREATE INDEX exile_run_bundle ON exile_run (bundle) WHERE kept = 1;

-- Blobs that nothing may name: they were put alone at `since` (within an hour), or lost a name (0).
CREATE TABLE exile_blob_doubt (
    blob  TEXT PRIMARY KEY,
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO exile_blob_doubt (blob, since) SELECT id, put_at FROM exile_blob;
DROP INDEX exile_blob_put;
ALTER TABLE exile_blob DROP COLUMN put_at;

-- Messages that no user of a conversation sees go with the records that name them.
CREATE INDEX exile_llm_message_hidden ON exile_llm_message (log, number) WHERE shown = 0;
