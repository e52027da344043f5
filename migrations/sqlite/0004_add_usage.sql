-- What calls to models took: one row for each model that a call asked.
CREATE TABLE exile_usage (
    seq              INTEGER PRIMARY KEY,
    id               TEXT NOT NULL UNIQUE,
    at               INTEGER NOT NULL, -- when it was asked
    owner            TEXT NOT NULL,
    key              TEXT,
    provider         TEXT NOT NULL,
    model            TEXT NOT NULL,
    business         TEXT,
    graph            TEXT,
    run              TEXT,
    input_tokens     INTEGER NOT NULL,
    cached_tokens    INTEGER NOT NULL, -- within the input
    written_tokens   INTEGER NOT NULL, -- within the input
    output_tokens    INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL, -- within the output
    cost             INTEGER,          -- in millionths; null: no price is known
    currency         TEXT NOT NULL,
    took_ms          INTEGER NOT NULL,
    first_ms         INTEGER,
    attempts         INTEGER NOT NULL,
    outcome          TEXT NOT NULL,    -- ok, cancelled, open, lost or a fault's code
    estimated        INTEGER NOT NULL, -- 1: nobody counted the tokens
    last             INTEGER NOT NULL  -- 1: no other model was asked after it
) STRICT;
CREATE INDEX exile_usage_at ON exile_usage (at);
CREATE INDEX exile_usage_owner ON exile_usage (owner, at);
CREATE INDEX exile_usage_open ON exile_usage (outcome) WHERE outcome = 'open';

-- Quotas that were set over the API.
CREATE TABLE exile_quota (
    kind       TEXT NOT NULL CHECK (kind IN ('user', 'key', 'business', 'model')),
    name       TEXT NOT NULL,
    body       TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;

ALTER TABLE exile_run ADD COLUMN written_tokens INTEGER NOT NULL DEFAULT 0;
