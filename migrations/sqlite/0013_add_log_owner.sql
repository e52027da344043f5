-- Owners are served in turn: the queue of logs is one for each of them.
ALTER TABLE exile_log ADD COLUMN owner TEXT NOT NULL DEFAULT ''; -- of its first run
UPDATE exile_log SET owner = coalesce(
    (SELECT owner FROM exile_run WHERE log = exile_log.key ORDER BY seq LIMIT 1), '');
DROP INDEX exile_log_free;
CREATE INDEX exile_log_free ON exile_log (owner, due)
    WHERE due IS NOT NULL AND lease_until IS NULL;
