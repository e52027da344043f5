-- The run of a message says which conversation it is of.
ALTER TABLE exile_llm_message DROP COLUMN conversation;
