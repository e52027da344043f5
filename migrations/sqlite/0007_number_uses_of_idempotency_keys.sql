-- Each use of a key has a generation of its own, which the ids of what it begins derive from: a key
-- that is used again after its answer is gone begins something new.
ALTER TABLE exile_idempotency ADD COLUMN generation TEXT NOT NULL DEFAULT '';
-- 1: this process is answering the request.
ALTER TABLE exile_idempotency ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
CREATE INDEX exile_idempotency_held ON exile_idempotency (held) WHERE held = 1;
-- Requests that were cut off before they had a generation.
DELETE FROM exile_idempotency WHERE status IS NULL;
