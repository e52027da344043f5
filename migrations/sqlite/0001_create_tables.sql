-- The first tables. Times are milliseconds since 1970, UTC; ids are text; JSON is text.
-- `seq` orders rows by birth and is what cursors hold.

CREATE TABLE exile_user (
    seq        INTEGER PRIMARY KEY,
    id         TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL UNIQUE,
    role       TEXT NOT NULL CHECK (role IN ('admin', 'author', 'user')),
    created_at INTEGER NOT NULL
) STRICT;

-- A key's text is not here: only its SHA-256 and its first characters.
CREATE TABLE exile_key (
    seq          INTEGER PRIMARY KEY,
    id           TEXT NOT NULL UNIQUE,
    user         TEXT NOT NULL REFERENCES exile_user (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    prefix       TEXT NOT NULL,
    digest       BLOB NOT NULL UNIQUE,
    scopes       TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER,
    revoked_at   INTEGER,
    expires_at   INTEGER
) STRICT;
CREATE INDEX exile_key_user ON exile_key (user);

CREATE TABLE exile_sign_in (
    digest     BLOB PRIMARY KEY,
    user       TEXT NOT NULL REFERENCES exile_user (id) ON DELETE CASCADE,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE exile_session (
    digest     BLOB PRIMARY KEY,
    user       TEXT NOT NULL REFERENCES exile_user (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE exile_llm_conversation (
    seq           INTEGER PRIMARY KEY,
    id            TEXT NOT NULL UNIQUE,
    owner         TEXT NOT NULL,
    title         TEXT,
    graph         TEXT NOT NULL,
    skill_name    TEXT,
    provider      TEXT,
    model         TEXT,
    business      TEXT,
    system_prompt TEXT,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX exile_llm_conversation_owner ON exile_llm_conversation (owner);

CREATE TABLE exile_llm_skill (
    name        TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    prompt      TEXT NOT NULL,
    model       TEXT,
    temperature REAL,
    tools       TEXT NOT NULL,
    rag_config  TEXT,
    mcp_servers TEXT NOT NULL,
    source      TEXT NOT NULL
) STRICT;

-- `key` stands for the log in other tables, so that a record costs few bytes.
CREATE TABLE exile_log (
    key         INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    head        INTEGER NOT NULL DEFAULT 0, -- at most the number of the last record, if there is one
    reserved    INTEGER NOT NULL DEFAULT 0, -- no number above this one was handed out
    epoch       INTEGER NOT NULL DEFAULT 0, -- rises with every claim
    worker      TEXT,
    lease_until INTEGER,                    -- null: nobody holds it
    active      TEXT,                       -- the run that has begun and not ended
    parked      INTEGER NOT NULL DEFAULT 0, -- the last record is a wait: `active` does not go on
    due         INTEGER,                    -- null: nothing to do; else its place in the queue
    wake        INTEGER,                    -- when there is something to do although it is parked
    parent      INTEGER REFERENCES exile_log (key), -- the log that this one is a fork of
    parent_at   INTEGER,                    -- the parent's last record that belongs to this one
    purged      INTEGER NOT NULL DEFAULT 0  -- records up to this number were removed
) STRICT;
CREATE INDEX exile_log_due ON exile_log (due) WHERE due IS NOT NULL;
CREATE INDEX exile_log_wake ON exile_log (wake) WHERE wake IS NOT NULL;
CREATE INDEX exile_log_parent ON exile_log (parent) WHERE parent IS NOT NULL;

CREATE TABLE exile_record (
    log      INTEGER NOT NULL REFERENCES exile_log (key) ON DELETE CASCADE,
    number   INTEGER NOT NULL,
    version  INTEGER NOT NULL,
    snapshot INTEGER, -- 1: it is one
    body     TEXT NOT NULL,
    PRIMARY KEY (log, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX exile_record_snapshot ON exile_record (log, number) WHERE snapshot = 1;

-- Where a log went back: the record `number` follows the record `at`.
CREATE TABLE exile_cut (
    log    INTEGER NOT NULL REFERENCES exile_log (key) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (log, number)
) STRICT, WITHOUT ROWID;

-- A consumed input keeps its id, so that sending it again changes nothing; its body is gone.
CREATE TABLE exile_input (
    seq      INTEGER PRIMARY KEY,
    log      INTEGER NOT NULL REFERENCES exile_log (key) ON DELETE CASCADE,
    id       TEXT NOT NULL,
    body     TEXT,
    consumed INTEGER, -- the log's head once it was consumed
    UNIQUE (log, id)
) STRICT;
CREATE INDEX exile_input_unread ON exile_input (log, seq) WHERE body IS NOT NULL;

CREATE TABLE exile_blob (
    id     TEXT PRIMARY KEY,
    body   BLOB NOT NULL,
    put_at INTEGER NOT NULL -- within an hour of when it was last put
) STRICT;

-- Which records need a blob besides the bundles that run rows name.
CREATE TABLE exile_blob_use (
    log    INTEGER NOT NULL REFERENCES exile_log (key) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    blob   TEXT NOT NULL,
    PRIMARY KEY (log, number, blob)
) STRICT, WITHOUT ROWID;
CREATE INDEX exile_blob_use_blob ON exile_blob_use (blob);

CREATE TABLE exile_run (
    seq              INTEGER PRIMARY KEY,
    id               TEXT NOT NULL UNIQUE,
    owner            TEXT NOT NULL,
    log              INTEGER NOT NULL REFERENCES exile_log (key) ON DELETE CASCADE,
    graph            TEXT NOT NULL,
    bundle           TEXT NOT NULL,
    conversation     TEXT REFERENCES exile_llm_conversation (id) ON DELETE CASCADE,
    status           TEXT NOT NULL CHECK (status IN (
                         'queued', 'running', 'waiting', 'finished', 'failed', 'cancelled',
                         'needs_attention')),
    error            TEXT,
    input            TEXT NOT NULL,
    input_tokens     INTEGER NOT NULL DEFAULT 0,
    cached_tokens    INTEGER NOT NULL DEFAULT 0,
    output_tokens    INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens INTEGER NOT NULL DEFAULT 0,
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    ended_at         INTEGER,
    first            INTEGER, -- null: no record yet
    last             INTEGER, -- null: the log's head, while it goes on
    trace_id         TEXT
) STRICT;
CREATE INDEX exile_run_owner ON exile_run (owner);
CREATE INDEX exile_run_log ON exile_run (log);
CREATE INDEX exile_run_open ON exile_run (log) WHERE ended_at IS NULL;
CREATE INDEX exile_run_conversation ON exile_run (conversation);

-- Ids are unique within a log, so that no caller can replace a message of somebody else's.
CREATE TABLE exile_llm_message (
    seq          INTEGER PRIMARY KEY,
    id           TEXT NOT NULL,
    conversation TEXT,
    run          TEXT NOT NULL,
    log          INTEGER NOT NULL REFERENCES exile_log (key) ON DELETE CASCADE,
    number       INTEGER NOT NULL,
    shown        INTEGER NOT NULL,
    role         TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),
    content      TEXT NOT NULL,
    reasoning    TEXT,
    tool_calls   TEXT,
    tool_call_id TEXT,
    tool_name    TEXT,
    model        TEXT,
    opaque       TEXT,
    covers       TEXT, -- of a summary: the last message that it stands for
    created_at   INTEGER NOT NULL,
    UNIQUE (id, log)
) STRICT;
CREATE INDEX exile_llm_message_log ON exile_llm_message (log);

CREATE TABLE exile_idempotency (
    owner       TEXT NOT NULL,
    key         TEXT NOT NULL,
    route       TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    begun_at    INTEGER NOT NULL,
    status      INTEGER, -- null: in flight
    headers     TEXT,
    body        BLOB,
    PRIMARY KEY (owner, key, route)
) STRICT;
CREATE INDEX exile_idempotency_begun ON exile_idempotency (begun_at);

-- One row that readiness checks write and take away again.
CREATE TABLE exile_probe (
    id   INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;
