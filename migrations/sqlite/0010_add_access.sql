-- Who is kept out, which businesses somebody may name, and which key made a key, a link or a session:
-- what a key made works only as long as the key does.
ALTER TABLE exile_user ADD COLUMN disabled_at INTEGER;
ALTER TABLE exile_user ADD COLUMN businesses TEXT NOT NULL DEFAULT '[]';
ALTER TABLE exile_key ADD COLUMN businesses TEXT NOT NULL DEFAULT '[]';
ALTER TABLE exile_key ADD COLUMN parent TEXT;
-- The key whose quota this one takes from; null: its own.
ALTER TABLE exile_key ADD COLUMN counts_as TEXT;
ALTER TABLE exile_sign_in ADD COLUMN key TEXT;
ALTER TABLE exile_session ADD COLUMN key TEXT;
CREATE INDEX exile_key_parent ON exile_key (parent) WHERE parent IS NOT NULL;
CREATE INDEX exile_key_live ON exile_key (user) WHERE revoked_at IS NULL;
CREATE INDEX exile_session_user ON exile_session (user);
