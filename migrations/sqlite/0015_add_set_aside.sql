-- Which messages the record `number` set aside: a provider refused them, and later runs of the log
-- begin without them. They stay in their conversation.
CREATE TABLE exile_set_aside (
    log    INTEGER NOT NULL REFERENCES exile_log (key) ON DELETE CASCADE,
    id     TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (log, id, number)
) STRICT, WITHOUT ROWID;
