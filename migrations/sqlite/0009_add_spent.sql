-- What calls came to, by whom and by stretch of time, so that a quota that is new to a process is
-- looked up and not counted anew. Kept with the rows of exile_usage in one transaction: each call is
-- in here once it is over.
CREATE TABLE exile_spent (
    kind     TEXT NOT NULL CHECK (kind IN ('user', 'key', 'business', 'model')),
    subject  TEXT NOT NULL,    -- an id, a business, provider/model
    slot_ms  INTEGER NOT NULL, -- how long the stretch is: a minute, or a quarter of an hour
    from_ms  INTEGER NOT NULL, -- when it begins
    currency TEXT NOT NULL,
    requests INTEGER NOT NULL,
    calls    INTEGER NOT NULL, -- of models; a request may ask several
    tokens   INTEGER NOT NULL,
    cost     INTEGER NOT NULL, -- in millionths
    PRIMARY KEY (kind, subject, slot_ms, from_ms, currency)
) STRICT, WITHOUT ROWID;
CREATE INDEX exile_spent_from ON exile_spent (slot_ms, from_ms);

-- What was spent before counts on. No window is longer than a month, and those of minutes are over
-- after one.
INSERT INTO exile_spent
SELECT k.column1,
       CASE k.column1 WHEN 'user' THEN u.owner WHEN 'key' THEN u.key
                      WHEN 'business' THEN u.business ELSE u.provider || '/' || u.model END AS name,
       t.column1, u.at / t.column1 * t.column1, u.currency,
       sum(u.last), count(*), sum(u.input_tokens + u.output_tokens), sum(coalesce(u.cost, 0))
FROM exile_usage u
CROSS JOIN (VALUES ('user'), ('key'), ('business'), ('model')) k
CROSS JOIN (VALUES (60000, 7200000), (900000, 62 * 86400000)) t
WHERE u.outcome <> 'open' AND name IS NOT NULL
  AND u.at >= (SELECT max(at) FROM exile_usage) - t.column2
GROUP BY 1, 2, 3, 4, 5;

-- A purge finds old blobs without reading them.
CREATE INDEX exile_blob_put ON exile_blob (put_at);
