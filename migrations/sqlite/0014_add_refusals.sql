-- Why nothing became of an input, as JSON; NULL once `body` is NULL too: it did what it asks for.
ALTER TABLE exile_input ADD COLUMN refused TEXT;
